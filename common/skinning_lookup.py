"""Lookups in the skinning field: sums of 13 trilinear samples, in torch and for the CPU (SPEC 8, 18)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE_STEPS = (1.0, -1.0, 2.0, -2.0)  # in standard deviations, along each axis
SAMPLE_WEIGHTS = (0.5, 0.5, 0.3, 0.3)  # the centre has weight 1


def look_up_torch(table: Tensor, points: Tensor, steps: Tensor) -> Tensor:
    """Weighted sum (N, J) of 13 samples of table (X, Y, Z, J) at points +- steps (N, 3), in cells."""
    size = torch.tensor(table.shape[:3], device=points.device)
    last = (size - 1).to(points.dtype)
    offset, weight = _sample_pattern(points)
    is_outside = ((points < 0) | (points > last)).any(1)
    margin = torch.where(is_outside, 0.0, 2.0).to(points)[:, None, None]  # there is nothing farther out
    position = (points[:, None] + offset * steps[:, None]).clamp(-margin, last + margin)  # (N, 13, 3)
    cell = position.detach().floor()
    fraction = position - cell
    corner = torch.cartesian_prod(*[torch.arange(2, device=points.device)] * 3)  # (8, 3)
    per_axis = torch.where(corner == 1, fraction[:, :, None], 1 - fraction[:, :, None])  # (N, 13, 8, 3)
    index = cell.nan_to_num().long()[:, :, None] + corner
    is_inside = ((index >= 0) & (index < size)).all(-1)
    coefficient = per_axis.prod(-1) * is_inside * weight[:, None]  # (N, 13, 8)
    x, y, z = index.clamp(torch.zeros_like(size), size - 1).unbind(-1)
    row = (x * size[1] + y) * size[2] + z
    rows_of_table = table.view(-1, table.shape[-1])
    return F.embedding_bag(
        row.flatten(1), rows_of_table, mode="sum", per_sample_weights=coefficient.flatten(1)
    )


def _sample_pattern(like: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets (13, 3) in standard deviations and weights (13,)."""
    offset, weight = [[0.0, 0.0, 0.0]], [1.0]
    for axis in range(3):
        for step, step_weight in zip(SAMPLE_STEPS, SAMPLE_WEIGHTS, strict=True):
            offset.append([step if k == axis else 0.0 for k in range(3)])
            weight.append(step_weight)
    return like.new_tensor(offset), like.new_tensor(weight)


def look_up_cpu(table: Tensor, points: Tensor, steps: Tensor) -> Tensor:
    """`look_up_torch` in compiled loops that visit each grid point once; CPU tensors of one dtype."""
    result: Tensor = _CpuLookup.apply(table, points, steps)
    return result


class _CpuLookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, points: Tensor, steps: Tensor) -> Tensor:
        from common import skinning_kernels
        from common.rasterizer.numba_threads import torch_threads

        ctx.save_for_backward(table, points, steps)
        out = points.new_empty(points.shape[0], table.shape[-1])
        with torch_threads():
            skinning_kernels.look_up(*_CpuLookup.arrays(table, points, steps), out.numpy())
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[None, Tensor, None]:
        from common import skinning_kernels
        from common.rasterizer.numba_threads import torch_threads

        arrays = _CpuLookup.arrays(*ctx.saved_tensors)
        grad_points = grad_out.new_empty(grad_out.shape[0], 3)
        with torch_threads():
            skinning_kernels.look_up_backward(*arrays, grad_out.contiguous().numpy(), grad_points.numpy())
        return None, grad_points, None

    @staticmethod
    def arrays(table: Tensor, points: Tensor, steps: Tensor) -> tuple[np.ndarray, ...]:
        """Arguments of the kernels: rows of the table, its size, points, steps."""
        size = np.array(table.shape[:3])
        flat = table.view(-1, table.shape[-1]).numpy()
        return flat, size, points.detach().contiguous().numpy(), steps.detach().contiguous().numpy()
