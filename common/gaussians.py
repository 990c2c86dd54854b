"""A set of 3D Gaussians."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussians:
    """Geometry and colour of N Gaussians in world space.

    The avatar's are isotropic and opaque: `scale` has one column, `rotation` and `opacity` are None
    (identity rotation, opacity 1). The general form is accepted everywhere.
    """

    mean: Tensor  # (N, 3) metres
    scale: Tensor  # (N, 1) or (N, 3) standard deviation, metres
    rgb: Tensor  # (N, 3) in [0, 1]
    rotation: Tensor | None = None  # (N, 4) quaternion w, x, y, z
    opacity: Tensor | None = None  # (N,) in [0, 1]

    def select(self, index: Tensor) -> Gaussians:
        """The subset at `index` (bool mask (N,) or indices)."""
        return Gaussians(
            mean=rows(self.mean, index),
            scale=rows(self.scale, index),
            rgb=rows(self.rgb, index),
            rotation=None if self.rotation is None else rows(self.rotation, index),
            opacity=None if self.opacity is None else rows(self.opacity, index),
        )


def rows(values: Tensor, which: Tensor) -> Tensor:
    """Rows of `values` by index, or where a bool mask is true; with indices the host need not wait for the GPU."""
    return values[which] if which.dtype == torch.bool else values.index_select(0, which)
