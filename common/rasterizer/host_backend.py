"""Gaussians of any device drawn by the CPU rasterizer, whose sums have a fixed order; slow, for repeatable runs.

To autograd this is one operation of the Gaussians' own device. Operations on the CPU would have a thread of their own
there, and gradients would be added up in the order in which the threads happen to deliver them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.rasterizer import numba_backend
from common.rasterizer.interface import Splats

NAMES = ("mean", "scale", "rotation", "opacity", "channels")  # of what may need gradients


def render(splats: Splats) -> Tensor:
    """Image (C, H, W) of the splats on their own device (SPEC 10)."""
    inputs = [getattr(splats, name) for name in NAMES]
    image: Tensor = _OnHost.apply(splats, *inputs)  # type: ignore[no-untyped-call]
    return image


class _OnHost(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, splats: Splats, *inputs: Tensor | None) -> Tensor:
        needed = ctx.needs_input_grad[1:]
        copies = [
            None if tensor is None else tensor.detach().cpu().requires_grad_(is_needed)
            for tensor, is_needed in zip(inputs, needed, strict=True)
        ]
        mean, scale, rotation, opacity, channels = copies
        assert mean is not None and scale is not None and channels is not None
        on_host = replace(
            splats,
            mean=mean,
            scale=scale,
            rotation=rotation,
            opacity=opacity,
            channels=channels,
            camera=splats.camera.to("cpu"),
            background=splats.background.cpu(),
        )
        with torch.set_grad_enabled(any(needed)):
            ctx.image = numba_backend.render(on_host)
        ctx.copies = copies
        return ctx.image.detach().to(splats.mean.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        leaves = [copy for copy in ctx.copies if copy is not None and copy.requires_grad]
        found = iter(torch.autograd.grad(ctx.image, leaves, grad.cpu(), allow_unused=True, retain_graph=True))
        gradients = [next(found) if copy is not None and copy.requires_grad else None for copy in ctx.copies]
        return None, *(None if gradient is None else gradient.to(grad.device) for gradient in gradients)
