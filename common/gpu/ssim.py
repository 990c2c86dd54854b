"""1 - SSIM on the GPU with the gradient to the first image (SPEC 12)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.gpu import ssim_kernels as kernels

BLOCK = 512


def dissimilarity(x: Tensor, y: Tensor, window: Tensor, c1: float, c2: float) -> Tensor:
    """1 - SSIM of images (..., H, W) under a separable odd window (K,), zeros around; y is constant."""
    assert not y.requires_grad, "the second image is a constant"
    result: Tensor = _Dissimilarity.apply(x, y, window, c1, c2)  # type: ignore[no-untyped-call]
    return result


class _Dissimilarity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, window: Tensor, c1: float, c2: float) -> Tensor:
        x, y = x.contiguous(), y.contiguous()
        height, width = x.shape[-2:]
        n = x.numel()
        sums, slopes, out = x.new_empty(5, n), x.new_empty(3, n), torch.empty_like(x)
        grid, taps = (-(-n // BLOCK),), len(window)
        kernels.sum_rows[grid](x, y, window, sums, n, width, TAPS=taps, BLOCK=BLOCK)
        kernels.sum_columns[grid](
            sums, window, out, slopes, n, height, width, C1=c1, C2=c2, TAPS=taps, BLOCK=BLOCK
        )
        ctx.save_for_backward(x, y, window, slopes)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, y, window, slopes = ctx.saved_tensors
        height, width = x.shape[-2:]
        n, taps = x.numel(), len(window)
        sums, d_x = torch.empty_like(slopes), torch.empty_like(x)
        grid = (-(-n // BLOCK),)
        kernels.spread_rows[grid](grad.contiguous(), slopes, window, sums, n, width, TAPS=taps, BLOCK=BLOCK)
        kernels.spread_columns[grid](sums, x, y, window, d_x, n, height, width, TAPS=taps, BLOCK=BLOCK)
        return d_x, None, None, None, None
