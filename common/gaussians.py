"""A set of 3D Gaussians."""

from __future__ import annotations

from dataclasses import dataclass

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
            mean=self.mean[index],
            scale=self.scale[index],
            rgb=self.rgb[index],
            rotation=None if self.rotation is None else self.rotation[index],
            opacity=None if self.opacity is None else self.opacity[index],
        )
