"""Whether a fast rasterizer works on this machine: a small picture and its gradients against the reference."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor

from common.camera import Camera
from common.rasterizer.interface import Splats

_TOLERANCE = 1e-2  # relative, on average: single pixels at a threshold of the blending may flip
_SIZE = 32  # pixels
_N_GAUSSIANS = 64


def numba_failure() -> str | None:
    """Why the CPU rasterizer does not work; None if it does."""
    return _failure("numba_backend", torch.device("cpu"))


def triton_failure(device: torch.device) -> str | None:
    """Why the GPU rasterizer does not work on a CUDA device; None if it does."""
    return _failure("triton_backend", device)


def _failure(module: str, device: torch.device) -> str | None:
    try:
        # the backend itself: `rasterize` would quietly take the reference where a backend fails
        found = _render(import_module(f"common.rasterizer.{module}").render, device)
        expected = _render(import_module("common.rasterizer.torch_backend").render, device)
    except Exception as error:  # noqa: BLE001 - missing and broken compilers fail in many ways
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else ''}"
    differences = [float((a - b).abs().sum() / b.abs().sum()) for a, b in zip(found, expected, strict=True)]
    if not all(difference < _TOLERANCE for difference in differences):
        return f"its image or gradients differ from the reference by {max(differences):.1%}"
    return None


def _render(render: Callable[[Splats], Tensor], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Image of a few Gaussians, and its gradients to their centres and sizes."""
    generator = torch.Generator().manual_seed(0)
    place = torch.rand(_N_GAUSSIANS, 3, generator=generator) - 0.5 + torch.tensor([0.0, 0.0, 2.0])
    mean = place.to(device).requires_grad_()
    scale = torch.full((_N_GAUSSIANS, 1), 0.05, device=device).requires_grad_()
    camera = Camera.identity((_SIZE, _SIZE), (_SIZE / 2, _SIZE / 2), _SIZE, _SIZE)
    splats = Splats(
        mean=mean,
        scale=scale,
        rotation=None,
        opacity=None,
        camera=camera.to(device),
        channels=torch.rand(_N_GAUSSIANS, 3, generator=generator).to(device),
        is_detached=(False,) * 3,
        background=torch.zeros(3, device=device),
    )
    image = render(splats)
    image.square().mean().backward()
    assert mean.grad is not None and scale.grad is not None
    return image.detach(), mean.grad, scale.grad
