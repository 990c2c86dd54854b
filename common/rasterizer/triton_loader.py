"""Whether the Triton kernels work on this machine; where they do not, the torch rasterizer takes over (SPEC 10)."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from common.camera import Camera
from common.rasterizer import torch_backend
from common.rasterizer.interface import Splats

MIN_CAPABILITY = (7, 5)
MAX_CHANNELS = 64

logger = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def _warn(reason: str) -> None:
    logger.warning("the fast GPU rasterizer is not available (%s); a much slower one is used", reason)


def _interprets() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def _probe(device: torch.device, n_channels: int, like: Splats) -> None:
    """Compile and run the kernels of such a call, both directions, on one Gaussian."""
    from common.rasterizer.triton_backend import render

    one = torch.ones(1, like.scale.shape[1], device=device)
    splats = Splats(
        mean=torch.tensor([[0.0, 0.0, 1.0]], device=device).requires_grad_(),
        scale=one.requires_grad_(),
        rotation=None if like.rotation is None else torch.ones(1, 4, device=device),
        opacity=None if like.opacity is None else torch.ones(1, device=device),
        camera=Camera.identity((16.0, 16.0), (8.0, 8.0), 16, 16).to(device),
        channels=torch.ones(1, n_channels, device=device),
        is_detached=(False,) * n_channels,
        background=torch.zeros(n_channels, device=device),
    )
    with torch.inference_mode(False), torch.enable_grad():
        image = render(splats)
        image.sum().backward()
    assert splats.mean.grad is not None
    if not (torch.isfinite(image).all() and image.max() > 0.5 and torch.isfinite(splats.mean.grad).all()):
        raise RuntimeError("its test image is wrong")


_working: dict[tuple, bool] = {}


def _works(splats: Splats) -> bool:
    """Whether the kernels of such a call compile and run here; found out once."""
    device, n_channels = splats.mean.device, splats.channels.shape[1]
    key = (device, n_channels, splats.scale.shape[1], splats.rotation is None, splats.opacity is None)
    if key not in _working:
        try:
            if device.type == "cuda" and torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
                raise RuntimeError(f"{torch.cuda.get_device_name(device)} is too old for it")
            _probe(device, n_channels, splats)
            _working[key] = True
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a missing or broken compiler fails in many ways
            _warn(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}")
            _working[key] = False
    return _working[key]


def render_together(scenes: Sequence[Splats]) -> list[Tensor]:
    """Images of several scenes, in one call of the Triton kernels if they can."""
    is_one_call = len(scenes) > 1 and all(
        scene.mean.dtype == torch.float32 and 1 <= scene.channels.shape[1] <= MAX_CHANNELS and _works(scene)
        for scene in scenes
    )
    if not is_one_call:
        return [render(scene) for scene in scenes]
    from common.rasterizer import triton_backend

    try:
        return list(triton_backend.render_together(scenes))
    except triton_backend.TooManyPairs:
        return [render(scene) for scene in scenes]


def render(splats: Splats) -> Tensor:
    """Image (C, H, W) of the splats, by Triton if it can."""
    if splats.mean.device.type != "cuda" and not _interprets():
        raise ValueError(
            f'the Triton rasterizer works on CUDA tensors, not on {splats.mean.device}; use "auto"'
        )
    is_supported = splats.mean.dtype == torch.float32 and 1 <= splats.channels.shape[1] <= MAX_CHANNELS
    if not is_supported or not _works(splats):
        return torch_backend.render(splats)
    from common.rasterizer import triton_backend

    try:
        return triton_backend.render(splats)
    except triton_backend.TooManyPairs as error:
        logger.warning("%s; a much slower rasterizer is used", error)
        return torch_backend.render(splats)
