"""Skinning lookups on the GPU: sums of 13 trilinear samples, L1-normalised, with the gradient to the points (SPEC 8, 18)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.gpu import lookup_kernels as kernels

BLOCK = 16  # Gaussians to a program


def look_up_normalised(table: Tensor, points: Tensor, steps: Tensor) -> Tensor:
    """L1-normalised `skinning_lookup.look_up_torch`: (N, J) of table (X, Y, Z, J) at points +- steps (N, 3), in cells."""
    result: Tensor = _Lookup.apply(table, points, steps)  # type: ignore[no-untyped-call]
    return result


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, points: Tensor, steps: Tensor) -> Tensor:
        points, steps = points.contiguous(), steps.contiguous()
        n, width = len(points), table.shape[-1]
        out, total = points.new_empty(n, width), points.new_empty(n)
        grid = (-(-n // BLOCK),)
        size = table.shape[:3]
        kernels.look_up[grid](
            table,
            points,
            steps,
            out,
            total,
            n,
            *size,
            C=width,
            WIDTH=_padded(width),
            BLOCK=BLOCK,
            num_warps=4,
        )
        ctx.save_for_backward(table, points, steps, out, total)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        table, points, steps, out, total = ctx.saved_tensors
        n, width = out.shape
        grad_points = torch.empty_like(points)
        kernels.look_up_backward[(-(-n // BLOCK),)](
            table,
            points,
            steps,
            out,
            total,
            grad.contiguous(),
            grad_points,
            n,
            *table.shape[:3],
            C=width,
            WIDTH=_padded(width),
            BLOCK=BLOCK,
            num_warps=4,
        )
        return None, grad_points, None


def _padded(width: int) -> int:
    return 1 << (width - 1).bit_length()
