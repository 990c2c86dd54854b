"""Image quality figures as the evaluation reports them (SPEC 14)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from common.losses import structural_similarity


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images of one shape in [0, 1], over all elements; inf if equal."""
    assert x.shape == y.shape, (x.shape, y.shape)
    return -10 * torch.log10((x - y).square().mean())


def ssim(x: Tensor, y: Tensor, size: int = 11, sigma: float = 1.5) -> Tensor:
    """Mean SSIM of images (3, H, W) in [0, 1], torchmetrics' kind: reflect padding, all pixels count.

    (The training loss pads with zeros, see common.losses.ssim_map.) Images must be larger than half a window.
    """
    assert x.shape == y.shape and min(x.shape[-2:]) > size // 2, (x.shape, y.shape)
    pad = (size // 2,) * 4
    x, y = (F.pad(image[None], pad, mode="reflect")[0] for image in (x, y))
    return structural_similarity(x, y, size, sigma, c1=1e-4, c2=9e-4, padding=0).mean()
