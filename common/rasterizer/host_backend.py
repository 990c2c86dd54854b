"""Gaussians of any device drawn by the CPU rasterizer, whose sums have a fixed order; slow, for repeatable runs."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from common.rasterizer import numba_backend
from common.rasterizer.interface import Splats


def render(splats: Splats) -> Tensor:
    """Image (C, H, W) of the splats on their own device (SPEC 10)."""
    on_host = replace(
        splats,
        mean=splats.mean.cpu(),
        scale=splats.scale.cpu(),
        rotation=None if splats.rotation is None else splats.rotation.cpu(),
        opacity=None if splats.opacity is None else splats.opacity.cpu(),
        camera=splats.camera.to("cpu"),
        channels=splats.channels.cpu(),
        background=splats.background.cpu(),
    )
    return numba_backend.render(on_host).to(splats.mean.device)
