"""Gaussians in the form in which the page draws them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from common.camera import Camera

UNITS_PER_METRE = (
    100.0  # the page keeps covariances as 16-bit floats; (1 mm)^2 in metres is below their range
)
# The page widens a Gaussian's picture by 0.3 px^2 and drops it if its covariance then has a determinant below
# 0.25 px^4: without a smallest size the face, whose Gaussians are small, would have holes.
MIN_PICTURE_PX = 1.1 * math.sqrt(0.5 - 0.3)
STEPS_PER_OCTAVE = 2  # of the smallest size, so that it does not change with every move of the camera
NEAREST_M = 0.1


def smallest_scale(point: Tensor, eye: Camera) -> float:
    """Standard deviation in metres below which the page would drop a Gaussian at `point` (3,), in coarse steps."""
    depth = max(float(eye.world_to_camera(point)[2]), NEAREST_M)
    scale = MIN_PICTURE_PX * depth / float(eye.focal[1])
    return float(2 ** (math.ceil(math.log2(scale) * STEPS_PER_OCTAVE) / STEPS_PER_OCTAVE))


def page_centers(mean: Tensor) -> np.ndarray:
    """Means (N, 3) float32 in the page's unit."""
    return (mean * UNITS_PER_METRE).cpu().numpy()


def page_covariances(scale: Tensor, min_scale_m: float) -> np.ndarray:
    """Covariances (N, 3, 3) of isotropic Gaussians (N, 1), none smaller than `min_scale_m`."""
    variance = (scale.clamp(min=min_scale_m) * UNITS_PER_METRE).square().cpu()
    return (variance[:, :, None] * torch.eye(3)).numpy()


def page_colours(rgb: Tensor) -> np.ndarray:
    """Colours (N, 3) as uint8."""
    return (rgb * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
