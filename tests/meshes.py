"""Small meshes with known properties, for tests."""

from __future__ import annotations

import numpy as np

from common.mesh import Subdivider


def icosahedron() -> tuple[np.ndarray, np.ndarray]:
    """Vertices (12, 3) on the unit sphere and faces (20, 3), outwards."""
    golden_ratio = (1 + 5**0.5) / 2
    corners = [(0, s, t * golden_ratio) for s in (-1, 1) for t in (-1, 1)]
    vertices = np.array([np.roll(corner, k) for k in range(3) for corner in corners])
    edge = 2.0 + 1e-6
    near = np.linalg.norm(vertices[:, None] - vertices[None], axis=-1) < edge
    faces = []
    for i in range(12):
        for j in range(i + 1, 12):
            for k in range(j + 1, 12):
                if near[i, j] and near[j, k] and near[i, k]:
                    outwards = np.linalg.det(vertices[[i, j, k]]) > 0
                    faces.append((i, j, k) if outwards else (i, k, j))
    return vertices / np.linalg.norm(vertices, axis=1, keepdims=True), np.array(faces)


def sphere(levels: int) -> tuple[np.ndarray, np.ndarray]:
    """A subdivided icosahedron with its vertices moved onto the unit sphere."""
    import torch

    vertices, faces = icosahedron()
    for _ in range(levels):
        step = Subdivider(faces, len(vertices), 1)
        vertices = step.interpolate(torch.from_numpy(vertices)).numpy()
        vertices = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
        faces = step.faces.numpy()
    return vertices, faces


def grid(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """A flat sheet z = 0 of rows x columns vertices at unit distance, faces towards +z."""
    y, x = np.mgrid[:rows, :columns]
    vertices = np.stack([x, y, 0 * x], axis=-1).reshape(-1, 3).astype(np.float64)
    ids = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = ids[:-1, :-1], ids[:-1, 1:], ids[1:, 1:], ids[1:, :-1]
    faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
    return vertices, faces


def wheel(n_spokes: int) -> np.ndarray:
    """Faces of a closed fan around vertex n_spokes, whose rim is 0 .. n_spokes - 1."""
    rim = np.arange(n_spokes)
    return np.stack([np.full(n_spokes, n_spokes), rim, (rim + 1) % n_spokes], axis=1)
