"""Skinning lookups on the GPU: sums of 13 trilinear samples, L1-normalised, with the gradient to points (SPEC 8)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.gpu import lookup_kernels as kernels
from common.gpu import rooms

BLOCK = 16  # Gaussians to a program
STENCILS = 128

FIRST_ROOM = 40  # rows of the table to a lookup
SPARE = 1.5  # room over what was last needed: scales grow

_rooms: dict[torch.device, int] = {}


def look_up_normalised(table: Tensor, points: Tensor, steps: Tensor) -> Tensor:
    """L1-normalised `skinning_lookup.look_up_torch`: rows (N, J) of table (X, Y, Z, J)."""
    result: Tensor = _Lookup.apply(table, points, steps)  # type: ignore[no-untyped-call]
    return result


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, points: Tensor, steps: Tensor) -> Tensor:
        points, steps = points.contiguous(), steps.contiguous()
        n, width = len(points), table.shape[-1]
        out, total = points.new_empty(n, width), points.new_empty(n)
        room = _rooms.get(points.device, FIRST_ROOM)
        while True:
            rows, weights, count = _find_rows(table, points, steps, room, with_slopes=False)
            most = count.amax() if n else count.new_zeros(())
            if rooms.is_capturing(points.device):
                rooms.watch(most, room)
                break
            needed = int(most)
            _rooms[points.device] = max(_rooms.get(points.device, 0), math.ceil(SPARE * needed))
            if needed <= room:
                break
            room = _rooms[points.device]
        kernels.look_up[(-(-n // BLOCK),)](
            table, rows, weights, count, out, total, n, room, C=width, WIDTH=_padded(width), BLOCK=BLOCK
        )
        ctx.save_for_backward(table, points, steps, out, total)
        ctx.room = room
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        table, points, steps, out, total = ctx.saved_tensors
        n, width = out.shape
        grad_points = torch.empty_like(points)
        rows, slopes, count = _find_rows(table, points, steps, ctx.room, with_slopes=True)
        kernels.look_up_backward[(-(-n // BLOCK),)](
            table,
            rows,
            slopes,
            count,
            out,
            total,
            grad.contiguous(),
            grad_points,
            n,
            ctx.room,
            C=width,
            WIDTH=_padded(width),
            BLOCK=BLOCK,
        )
        return None, grad_points, None


def _find_rows(
    table: Tensor, points: Tensor, steps: Tensor, room: int, with_slopes: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (room, N) of the table, their weights (room, N) or slopes (3, room, N), how many there are (N,)."""
    n = len(points)
    rows = torch.empty(room, n, dtype=torch.int32, device=points.device)
    parts = points.new_empty(3, room, n) if with_slopes else points.new_empty(room, n)
    count = torch.empty(n, dtype=torch.int32, device=points.device)
    kernels.find_rows[(-(-n // STENCILS),)](
        points, steps, rows, parts, count, n, room, *table.shape[:3], WITH_SLOPES=with_slopes, BLOCK=STENCILS
    )
    return rows, parts, count


def _padded(width: int) -> int:
    return 1 << (width - 1).bit_length()
