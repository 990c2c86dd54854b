"""Parts of the offset net on the GPU: tri-plane lookups at fixed points, and group norm with ReLU (SPEC 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.gpu import net_kernels as kernels

POINTS = 32
ROWS = 32


@dataclass(frozen=True)
class PlaneCorners:
    """Where fixed points lie in the planes: bilinear, zeros outside, corners not aligned."""

    texel: Tensor  # (3, M, 4) int32 into the plane's texels
    weight: Tensor  # (3, M, 4)


@torch.no_grad()
def plane_corners(points: Tensor, size: int) -> PlaneCorners:
    """Texels and weights of points (M, 3) in [-1, 1] in the planes xy, xz, yz of size x size texels."""
    texels, weights = [], []
    for across, down in ((0, 1), (0, 2), (1, 2)):
        position = ((points[:, [across, down]] + 1) * size - 1) / 2
        cell = position.floor()
        fraction = position - cell
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            x, y = cell[:, 0].long() + dx, cell[:, 1].long() + dy
            is_inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
            along_x = fraction[:, 0] if dx else 1 - fraction[:, 0]
            along_y = fraction[:, 1] if dy else 1 - fraction[:, 1]
            texels.append(torch.where(is_inside, y * size + x, 0).int())
            weights.append(along_x * along_y * is_inside)
    n = len(points)
    return PlaneCorners(
        torch.stack(texels).view(3, 4, n).transpose(1, 2).contiguous(),
        torch.stack(weights).view(3, 4, n).transpose(1, 2).contiguous(),
    )


def sample_planes(planes: Tensor, corners: PlaneCorners) -> Tensor:
    """Features (M, 3 C) of planes (3, C, S, S) at the points of `corners`; C is a power of two."""
    table = planes.permute(0, 2, 3, 1).flatten(1, 2)  # (3, S S, C)
    result: Tensor = _SamplePlanes.apply(table, corners.texel, corners.weight)  # type: ignore[no-untyped-call]
    return result


class _SamplePlanes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, texel: Tensor, weight: Tensor) -> Tensor:
        table = table.contiguous()
        _, n_texels, width = table.shape
        n = texel.shape[1]
        out = table.new_empty(n, 3 * width)
        kernels.sample[(-(-n // POINTS), 3)](table, texel, weight, out, n, n_texels, C=width, BLOCK=POINTS)
        ctx.save_for_backward(texel, weight)
        ctx.shape = table.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        texel, weight = ctx.saved_tensors
        _, n_texels, width = ctx.shape
        n = texel.shape[1]
        d_table = grad.new_zeros(ctx.shape)
        kernels.spread[(-(-n // POINTS), 3)](
            grad.contiguous(), texel, weight, d_table, n, n_texels, C=width, BLOCK=POINTS
        )
        return d_table, None, None


def group_norm_relu(x: Tensor, weight: Tensor, bias: Tensor, n_groups: int, eps: float) -> Tensor:
    """ReLU of the group norm of rows (M, C); C and n_groups are powers of two."""
    result: Tensor = _GroupNormRelu.apply(x, weight, bias, n_groups, eps)  # type: ignore[no-untyped-call]
    return result


class _GroupNormRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, n_groups: int, eps: float) -> Tensor:
        x, (n, width) = x.contiguous(), x.shape
        out = torch.empty_like(x)
        kernels.normalise[(-(-n // ROWS),)](
            x, weight, bias, out, n, eps, C=width, GROUPS=n_groups, BLOCK=ROWS
        )
        ctx.save_for_backward(x, weight, bias)
        ctx.n_groups, ctx.eps = n_groups, eps
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        n, width = x.shape
        n_blocks = -(-n // ROWS)
        d_x, sums = torch.empty_like(x), x.new_empty(2, n_blocks, width)
        kernels.normalise_backward[(n_blocks,)](
            x, weight, bias, grad.contiguous(), d_x, sums, n, ctx.eps, n_blocks,
            C=width, GROUPS=ctx.n_groups, BLOCK=ROWS,
        )  # fmt: skip
        d_weight, d_bias = sums.sum(1).unbind(0)
        return d_x, d_weight, d_bias, None, None


class PickRows(torch.autograd.Function):
    """Rows of a small table (J, C) by index (M,); the backward is one matrix product, so its order is fixed."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.n_rows = len(table)
        return table.index_select(0, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        row = torch.arange(ctx.n_rows, device=index.device)
        return (row[:, None] == index).to(grad.dtype) @ grad, None
