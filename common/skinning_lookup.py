"""Lookups in the skinning field: the weighted sum of 13 trilinear samples, in torch and in compiled CPU loops (SPEC 8, 18)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE_STEPS = (1.0, -1.0, 2.0, -2.0)  # in standard deviations, along each axis
SAMPLE_WEIGHTS = (0.5, 0.5, 0.3, 0.3)  # the centre has weight 1


def look_up_torch(table: Tensor, points: Tensor, steps: Tensor) -> Tensor:
    """Weighted sum (N, J) of 13 samples of table (X, Y, Z, J) at points +- steps (N, 3), in cells; any device."""
    size = torch.tensor(table.shape[:3], device=points.device)
    last = (size - 1).to(points.dtype)
    offset, weight = _sample_pattern(points)
    is_outside = ((points < 0) | (points > last)).any(1)  # (N,)
    position = points[:, None] + offset * steps[:, None]  # (N, 13, 3)
    position = torch.where(is_outside[:, None, None], position.clamp(torch.zeros_like(last), last), position)
    cell = position.detach().floor()
    fraction = position - cell
    corner = torch.cartesian_prod(*[torch.arange(2, device=points.device)] * 3)  # (8, 3)
    per_axis = torch.where(corner == 1, fraction[:, :, None], 1 - fraction[:, :, None])  # (N, 13, 8, 3)
    index = cell.nan_to_num().clamp(-2, float(size.max()) + 1).long()[:, :, None] + corner  # (N, 13, 8, 3)
    is_inside = ((index >= 0) & (index < size)).all(-1)
    index = index.clamp(torch.zeros_like(size), size - 1)
    row = (index[..., 0] * size[1] + index[..., 1]) * size[2] + index[..., 2]
    coefficient = per_axis.prod(-1) * is_inside * weight[:, None]
    n = points.shape[0]
    flat = table.view(-1, table.shape[-1])
    return F.embedding_bag(row.view(n, -1), flat, mode="sum", per_sample_weights=coefficient.reshape(n, -1))


def _sample_pattern(like: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets (13, 3) in standard deviations and weights (13,)."""
    offset, weight = [[0.0, 0.0, 0.0]], [1.0]
    for axis in range(3):
        for step, step_weight in zip(SAMPLE_STEPS, SAMPLE_WEIGHTS, strict=True):
            offset.append([step if k == axis else 0.0 for k in range(3)])
            weight.append(step_weight)
    return like.new_tensor(offset), like.new_tensor(weight)


def look_up_cpu(table: Tensor, points: Tensor, steps: Tensor) -> Tensor:
    """The same as `look_up_torch` by compiled loops that visit every grid point once; CPU tensors of one dtype."""
    result: Tensor = _CpuLookup.apply(table, points, steps)
    return result


class _CpuLookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, points: Tensor, steps: Tensor) -> Tensor:
        from common import skinning_kernels

        ctx.save_for_backward(table, points, steps)
        out = points.new_empty(points.shape[0], table.shape[-1])
        skinning_kernels.look_up(*_CpuLookup.arrays(table, points, steps), out.numpy())
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[None, Tensor, None]:
        from common import skinning_kernels

        arrays = _CpuLookup.arrays(*ctx.saved_tensors)
        grad_points = torch.empty_like(ctx.saved_tensors[1])
        skinning_kernels.look_up_backward(*arrays, grad_out.contiguous().numpy(), grad_points.numpy())
        return None, grad_points, None

    @staticmethod
    def arrays(table: Tensor, points: Tensor, steps: Tensor) -> tuple[np.ndarray, ...]:
        """Arguments of the kernels: rows of the table, its size, points, steps."""
        size = np.array(table.shape[:3])
        flat = table.view(-1, table.shape[-1]).numpy()
        return flat, size, points.detach().contiguous().numpy(), steps.detach().contiguous().numpy()
