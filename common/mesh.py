"""Triangle meshes: subdivision, normals, neighbour lists, Laplacian, rings, boundary loops (SPEC 7)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from common import gpu

MAX_NEIGHBOURS = 10  # SPEC 7: neighbour lists hold at most 10 neighbours per vertex
_ROWS_AT_ONCE = 1024  # of features that are interpolated


def as_faces(faces: Tensor | np.ndarray) -> Tensor:
    """Faces (F, 3) of any integer type as an int64 tensor."""
    if isinstance(faces, np.ndarray):
        faces = torch.from_numpy(faces.astype(np.int64))
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"faces have shape {tuple(faces.shape)}, expected (F, 3)")
    return faces.long()


def unique_edges(faces: Tensor, n_vertices: int) -> tuple[Tensor, Tensor]:
    """Edges (E, 2), (min, max) in lexicographic order, and each face's edge ids (F, 3) for ab, bc, ca."""
    key = _half_edges(faces.cpu().numpy(), n_vertices)
    ordered, order = _sort(key, n_vertices << _n_bits(n_vertices))
    is_first = _is_first(ordered)
    face_edges = np.empty_like(order)
    face_edges[order] = is_first.cumsum() - 1
    edges = np.stack(_pair(ordered[is_first], n_vertices), axis=-1)
    return torch.from_numpy(edges).to(faces.device), torch.from_numpy(face_edges.reshape(-1, 3)).to(
        faces.device
    )


# Connectivity is found with numpy, whose sort of numbers alone is ten times as fast as one that keeps an index.


def _edges(faces: np.ndarray, n_vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower and higher vertex of every edge, as `unique_edges` without the faces' edges."""
    key = _half_edges(faces, n_vertices)
    key.sort()
    return _pair(key[_is_first(key)], n_vertices)


def _half_edges(faces: np.ndarray, n_vertices: int) -> np.ndarray:
    """Keys (3F,) of (min, max) of ab, bc, ca of face after face."""
    following = np.roll(faces, -1, 1)
    return _pair_key(np.minimum(faces, following), np.maximum(faces, following), n_vertices).reshape(-1)


def _n_bits(n_values: int) -> int:
    return max(n_values - 1, 0).bit_length()


def _pair_key(first: np.ndarray, second: np.ndarray, n_vertices: int) -> np.ndarray:
    """One number for two vertices; the numbers are ordered like the pairs."""
    return (first << _n_bits(n_vertices)) | second


def _pair(key: np.ndarray, n_vertices: int) -> tuple[np.ndarray, np.ndarray]:
    bits = _n_bits(n_vertices)
    return key >> bits, key & ((1 << bits) - 1)


def _sort(key: np.ndarray, n_keys: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys (M,) in 0..n_keys - 1 in increasing order and where they were; equal ones stay in order."""
    bits = _n_bits(len(key))
    if _n_bits(n_keys) + bits > 63:
        order = np.argsort(key, kind="stable")
        return key[order], order
    packed = (key << bits) | np.arange(len(key))
    packed.sort()
    return packed >> bits, packed & ((1 << bits) - 1)


def _is_first(ordered: np.ndarray) -> np.ndarray:
    """Whether each of some numbers in increasing order differs from the one before."""
    return np.concatenate([ordered[:1] == ordered[:1], ordered[1:] != ordered[:-1]])


@dataclass(frozen=True)
class Subdivision:
    """One level of midpoint subdivision: old vertices first, then one vertex per edge (SPEC 7)."""

    edges: Tensor  # (E, 2) int64, lexicographic (min, max) pairs of old vertices
    faces: Tensor  # (4F, 3) int64
    n_vertices: int  # V + E

    def interpolate(self, features: Tensor) -> Tensor:
        """Per-vertex features (V, ...) -> (V + E, ...), the new ones midway between their edge's ends."""
        return _append_midpoints(features, self.edges)


def _append_midpoints(features: Tensor, edges: Tensor) -> Tensor:
    if features.device.type == "cpu" and features.is_floating_point() and not features.requires_grad:
        old, ends = features.numpy(), edges.numpy()
        values = np.empty((len(old) + len(ends), *old.shape[1:]), old.dtype)
        values[: len(old)] = old
        for start in range(0, len(ends), _ROWS_AT_ONCE):  # so that what is gathered stays in the cache
            a, b = ends[start : start + _ROWS_AT_ONCE].T
            place = len(old) + start
            np.multiply(0.5, old[a] + old[b], out=values[place : place + len(a)])
        return torch.from_numpy(values)
    ends = features.index_select(0, edges.reshape(-1)).unflatten(0, (-1, 2))
    return torch.cat([features, 0.5 * (ends[:, 0] + ends[:, 1])])


def subdivide(faces: Tensor | np.ndarray, n_vertices: int) -> Subdivision:
    """Split every edge of faces (F, 3) at its midpoint; vertex and face order as in SPEC 7."""
    faces = as_faces(faces)
    edges, face_edges = unique_edges(faces, n_vertices)
    a, b, c = faces.unbind(1)
    ab, bc, ca = (face_edges + n_vertices).unbind(1)
    blocks = ((a, ab, ca), (b, bc, ab), (c, ca, bc), (bc, ca, ab))
    new_faces = torch.cat([torch.stack(block, dim=1) for block in blocks])
    return Subdivision(edges, new_faces, n_vertices + edges.shape[0])


class Subdivider(nn.Module):
    """Several levels of midpoint subdivision of one mesh; `faces` and `n_vertices` are the finest level's."""

    faces: Tensor

    def __init__(self, faces: Tensor | np.ndarray, n_vertices: int, levels: int) -> None:
        super().__init__()
        if levels < 0:
            raise ValueError(f"number of subdivisions is {levels}, expected 0 or more")
        faces = as_faces(faces)
        self.levels = levels
        self.n_vertices_low = n_vertices
        for level in range(levels):
            step = subdivide(faces, n_vertices)
            self.register_buffer(f"edges_{level}", step.edges, persistent=False)
            faces, n_vertices = step.faces, step.n_vertices
        self.n_vertices = n_vertices
        self.register_buffer("faces", faces, persistent=False)

    def interpolate(self, features: Tensor) -> Tensor:
        """Per-vertex features (V, ...) of the coarse mesh -> (N, ...) of the finest."""
        if features.shape[0] != self.n_vertices_low:
            raise ValueError(f"features of {features.shape[0]} vertices, expected {self.n_vertices_low}")
        for level in range(self.levels):
            features = _append_midpoints(features, self.get_buffer(f"edges_{level}"))
        return features

    def interpolate_flag(self, flag: Tensor) -> Tensor:
        """A boolean part (V,) -> (N,): true only where its interpolated value is exactly 1 (SPEC 7)."""
        values = flag.cpu().numpy() == 1
        for level in range(self.levels):
            a, b = self.get_buffer(f"edges_{level}").cpu().numpy().T
            values = np.concatenate([values, values[a] & values[b]])
        return torch.from_numpy(values).to(flag.device)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit vertex normals (..., V, 3) of vertices (..., V, 3): area-weighted sums over the faces (SPEC 7).

    As published, sums shorter than 1e-6 m^2 (twice the area of the faces around) are divided by 1e-6 instead.
    """
    if gpu.is_on(vertices) and vertices.ndim == 2:
        from common.gpu.mesh import vertex_normals as on_gpu

        return on_gpu(vertices, faces)
    corners = vertices.index_select(-2, faces.reshape(-1)).unflatten(-2, (-1, 3))  # (..., F, 3, 3)
    a, b, c = corners.unbind(-2)
    face_normals = torch.linalg.cross(b - a, c - a)
    normals = torch.zeros_like(vertices)
    for corner in range(3):
        normals = normals.index_add(-2, faces[:, corner], face_normals)
    return F.normalize(normals, dim=-1, eps=1e-6)


class NeighbourLists(nn.Module):
    """Capped neighbours of every vertex, with what the Laplacian needs forward and backward (SPEC 7).

    index (V, K) int64 holds the neighbours, padded with the vertex's own index; weight (V, K) is -1/n for
    neighbours (n: how many are listed) and 0 for padding.
    """

    index: Tensor
    weight: Tensor
    back_index: Tensor  # the same weights by listed neighbour: which vertices list it ...
    back_offset: Tensor  # ... from which position ...
    back_weight: Tensor  # ... and with which weight

    def __init__(self, index: Tensor, weight: Tensor) -> None:
        super().__init__()
        if index.ndim != 2 or index.shape != weight.shape:
            raise ValueError(f"index {tuple(index.shape)}, weight {tuple(weight.shape)}: expected one (V, K)")
        n, width = index.shape
        weights, ids = weight.detach().cpu().numpy(), index.cpu().numpy().astype(np.int64)
        place = np.flatnonzero(weights)
        listed, order = _sort(ids.reshape(-1)[place], n)
        place = place[order]
        n_listings = np.bincount(listed, minlength=n)
        buffers = {
            "index": ids,
            "weight": weights,
            "back_index": place // max(width, 1),
            "back_offset": n_listings.cumsum() - n_listings,
            "back_weight": weights.reshape(-1)[place],
        }
        for name, values in buffers.items():
            self.register_buffer(name, torch.from_numpy(values).to(index.device), persistent=False)


def neighbour_lists(faces: Tensor | np.ndarray, n_vertices: int, cap: int = MAX_NEIGHBOURS) -> NeighbourLists:
    """Neighbours along edges in increasing index order, cut at `cap` (SPEC 7, 18)."""
    faces = as_faces(faces)
    a, b = _edges(faces.cpu().numpy(), n_vertices)
    key = np.concatenate([_pair_key(a, b, n_vertices), _pair_key(b, a, n_vertices)])
    key.sort()
    vertex, neighbour = _pair(key, n_vertices)
    degree = np.bincount(vertex, minlength=n_vertices)
    slot = np.arange(len(vertex)) - np.repeat(degree.cumsum() - degree, degree)
    is_listed = np.arange(cap) < degree[:, None]  # row by row in the order of the kept neighbours
    index = np.repeat(np.arange(n_vertices)[:, None], cap, axis=1)
    index[is_listed] = neighbour[slot < cap]
    share = np.float32(-1) / degree.clip(1, cap).astype(np.float32)
    weight = np.where(is_listed, share[:, None], np.float32(0))
    return NeighbourLists(torch.from_numpy(index).to(faces.device), torch.from_numpy(weight).to(faces.device))


class _WeightedNeighbours(torch.autograd.Function):
    """Weighted sums over listed neighbours; backward gathers too, so that it is quick and deterministic."""

    @staticmethod
    def forward(ctx, x: Tensor, index, weight, back_index, back_offset, back_weight) -> Tensor:
        ctx.save_for_backward(back_index, back_offset, back_weight)
        return F.embedding_bag(index, x, per_sample_weights=weight.to(x.dtype), mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        index, offset, weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x = F.embedding_bag(index, grad, offset, per_sample_weights=weight.to(grad.dtype), mode="sum")
        return grad_x, None, None, None, None, None


def laplacian(x: Tensor, lists: NeighbourLists) -> Tensor:
    """L(x) = x minus the mean of its listed neighbours, for x (V, C) (SPEC 7)."""
    if x.ndim != 2 or x.shape[0] != lists.index.shape[0]:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected ({lists.index.shape[0]}, C)")
    arrays = (lists.index, lists.weight, lists.back_index, lists.back_offset, lists.back_weight)
    if gpu.is_on(x):
        from common.gpu.mesh import laplacian as on_gpu

        return on_gpu(x, *arrays)
    return x + _WeightedNeighbours.apply(x.contiguous(), *arrays)


def grow_rings(mask: Tensor, lists: NeighbourLists, n_rings: int) -> Tensor:
    """Boolean mask (V,) grown n times by all listed neighbours of every member (SPEC 7)."""
    for _ in range(n_rings):
        mask = mask.index_fill(0, lists.index[mask].reshape(-1), True)
    return mask


def boundary_loops(faces: Tensor | np.ndarray) -> list[Tensor]:
    """Open boundaries of the mesh: each a list of vertex ids (L,) in the direction of their faces' edges."""
    faces = as_faces(faces).cpu()
    n_vertices = int(faces.max()) + 1 if faces.numel() else 0
    edges, face_edges = unique_edges(faces, n_vertices)
    is_open = torch.bincount(face_edges.reshape(-1), minlength=edges.shape[0]) == 1
    halves = torch.stack([faces, faces.roll(-1, dims=1)], dim=-1)[is_open[face_edges]]
    successors: dict[int, list[int]] = {}
    for start, end in halves.tolist():
        successors.setdefault(start, []).append(end)
    return [torch.tensor(loop) for start in list(successors) for loop in _loops_from(start, successors)]


def _loops_from(start: int, successors: dict[int, list[int]]) -> Iterator[list[int]]:
    """Walk the open half-edges from `start` until none goes on, using them up; each return to a vertex is a loop."""
    path = [start]
    while successors.get(path[-1]):
        vertex = successors[path[-1]].pop()
        if vertex in path:
            first = path.index(vertex)
            yield path[first:]
            del path[first + 1 :]
        else:
            path.append(vertex)


def fan(loop: Tensor | Sequence[int]) -> Tensor:
    """Triangles (L - 2, 3) closing a boundary loop, oriented like the faces around it."""
    ids = torch.as_tensor(loop).flip(0)
    return torch.stack([ids[:1].expand(ids.shape[0] - 2), ids[1:-1], ids[2:]], dim=1)
