"""Mesh surgery for the demo body: caps on open strips, quads to triangles."""

from __future__ import annotations

import numpy as np


def cap_open_strips(
    vertices: np.ndarray, quads: np.ndarray, quad_uv: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Close every boundary loop by rungs across it, so that no loop is left that could pass for a mouth.

    Only the rows of teeth are open: a strip along the gum, whose two long sides are zipped together.
    Returns quads and their UV corners with the caps appended, (Q + caps, 4) each.
    """
    uv_of = dict(zip(quads.ravel().tolist(), quad_uv.ravel().tolist(), strict=True))
    caps = [quad for loop in _boundary_loops(quads) for quad in _zip_quads(vertices, loop)]
    if not caps:
        return quads, quad_uv
    cap_uv = [[uv_of[vertex] for vertex in quad] for quad in caps]
    return np.concatenate([quads, np.array(caps)]), np.concatenate([quad_uv, np.array(cap_uv)])


def _boundary_loops(quads: np.ndarray) -> list[list[int]]:
    """Closed chains of half-edges that have no opposite, walked against the faces' direction."""
    half = {(int(q[i]), int(q[(i + 1) % 4])) for q in quads for i in range(4)}
    following = {b: a for a, b in half if (b, a) not in half}
    loops = []
    while following:
        start = min(following)
        loop, vertex = [start], following.pop(start)
        while vertex != start:
            loop.append(vertex)
            vertex = following.pop(vertex)
        loops.append(loop)
    return loops


def _zip_quads(vertices: np.ndarray, loop: list[int]) -> list[list[int]]:
    """Quads between the two sides of a loop of even length, turned so that the rungs are shortest."""
    n = len(loop)
    if n % 2:
        raise ValueError(f"a boundary loop of {n} vertices cannot be zipped into quads")
    rungs = np.arange(n // 2)
    lengths = []
    for turn in range(n):
        ids = np.roll(loop, -turn)
        lengths.append(np.linalg.norm(vertices[ids[rungs]] - vertices[ids[n - 1 - rungs]], axis=1).sum())
    ids = np.roll(loop, -int(np.argmin(lengths))).tolist()
    return [[ids[i], ids[i + 1], ids[n - 2 - i], ids[n - 1 - i]] for i in range(n // 2 - 1)]


def triangles(vertices: np.ndarray, quads: np.ndarray, quad_uv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each quad cut along its shorter diagonal: faces and their UV corners, both (F, 3)."""
    corner = vertices[quads]
    first = np.linalg.norm(corner[:, 0] - corner[:, 2], axis=1)
    second = np.linalg.norm(corner[:, 1] - corner[:, 3], axis=1)
    is_first = (first <= second + 1e-6)[:, None, None]
    cuts = np.where(is_first, [[0, 1, 2], [0, 2, 3]], [[0, 1, 3], [1, 2, 3]])  # (Q, 2, 3)
    take = np.arange(len(quads))[:, None, None]
    return quads[take, cuts].reshape(-1, 3), quad_uv[take, cuts].reshape(-1, 3)
