"""Vertex normals and Laplacians on the GPU, forward and backward, as gathers in a fixed order (SPEC 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.weak import WeakTensorKeyDictionary

from common.gpu import mesh_kernels as kernels

BLOCK = 128


@dataclass(frozen=True)
class Incidence:
    """Which faces touch each vertex of a mesh."""

    face: Tensor  # (3 F,) int32, vertex by vertex
    offset: Tensor  # (V + 1,) int32


_incidences = WeakTensorKeyDictionary()


def incidence(faces: Tensor, n_vertices: int) -> Incidence:
    """The faces (F, 3) around every vertex; found once for each tensor of faces."""
    found: Incidence | None = _incidences.get(faces)
    if found is None or len(found.offset) != n_vertices + 1:
        corners = faces.reshape(-1)
        order = torch.argsort(corners, stable=True)
        count = torch.zeros(n_vertices + 1, dtype=torch.int64, device=faces.device)
        count.index_add_(0, corners + 1, torch.ones_like(corners))
        found = Incidence((order // 3).int(), count.cumsum(0).int())
        _incidences[faces] = found
    return found


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """As `common.mesh.vertex_normals`, for vertices (V, 3)."""
    around = incidence(faces, len(vertices))
    result: Tensor = _Normals.apply(vertices, faces, around.face, around.offset)  # type: ignore[no-untyped-call]
    return result


class _Normals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vertices: Tensor, faces: Tensor, face: Tensor, offset: Tensor) -> Tensor:
        vertices, n = vertices.contiguous(), len(vertices)
        normals, length = torch.empty_like(vertices), vertices.new_empty(n)
        kernels.normals[(-(-n // BLOCK),)](vertices, faces, face, offset, normals, length, n, BLOCK=BLOCK)
        ctx.save_for_backward(vertices, faces, face, offset, normals, length)
        return normals

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        vertices, faces, face, offset, normals, length = ctx.saved_tensors
        n = len(vertices)
        d_sum, d_vertices = torch.empty_like(vertices), torch.empty_like(vertices)
        grid = (-(-n // BLOCK),)
        kernels.normals_to_sums[grid](normals, length, grad.contiguous(), d_sum, n, BLOCK=BLOCK)
        kernels.sums_to_vertices[grid](vertices, faces, face, offset, d_sum, d_vertices, n, BLOCK=BLOCK)
        return d_vertices, None, None, None


def laplacian(
    x: Tensor, index: Tensor, weight: Tensor, back_index: Tensor, back_offset: Tensor, back_weight: Tensor
) -> Tensor:
    """x (V, C) plus the weighted sum of its listed neighbours; the lists are those of `NeighbourLists`."""
    result: Tensor = _Laplacian.apply(x, index, weight, back_index, back_offset, back_weight)  # type: ignore[no-untyped-call]
    return result


class _Laplacian(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, weight: Tensor, *back: Tensor) -> Tensor:
        x, (n, width) = x.contiguous(), x.shape
        out = torch.empty_like(x)
        kernels.laplacian[(-(-n // BLOCK),)](
            x, index, weight, out, n, width, K=index.shape[1], WIDTH=_padded(width), BLOCK=BLOCK
        )
        ctx.save_for_backward(*back)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad, (n, width) = grad.contiguous(), grad.shape
        index, offset, weight = ctx.saved_tensors
        out = torch.empty_like(grad)
        kernels.laplacian_backward[(-(-n // BLOCK),)](
            grad, index, offset, weight, out, n, len(index), width, WIDTH=_padded(width), BLOCK=BLOCK
        )
        return out, None, None, None, None, None


def _padded(width: int) -> int:
    return max(2, 1 << (width - 1).bit_length())
