"""The pinhole camera; it owns the project's coordinate convention (SPEC 6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """OpenCV camera: x right, y down, z forward; x_cam = R x_world + t; pixel centres at half integers."""

    R: Tensor  # (3, 3) world to camera
    t: Tensor  # (3,) metres
    focal: Tensor  # (2,) x, y in pixels
    princpt: Tensor  # (2,) x, y in pixels, may lie outside the image
    height: int
    width: int

    def world_to_camera(self, points: Tensor) -> Tensor:
        """World points (..., 3) in camera coordinates."""
        return points @ self.R.T + self.t

    def camera_to_world(self, points: Tensor) -> Tensor:
        """Camera points (..., 3) in world coordinates: R^-1 (x - t)."""
        return (points - self.t) @ self.R_inverse_transposed

    @property
    def R_inverse_transposed(self) -> Tensor:
        """The inverse of R, transposed: R itself, but for the digits that files round away (as published).

        By cofactors, because a CUDA graph cannot hold torch.linalg.inv.
        """
        cofactors = torch.linalg.cross(self.R.roll(-1, 0), self.R.roll(-2, 0))
        return cofactors / (self.R[0] * cofactors[0]).sum()

    def rotate_to_camera(self, directions: Tensor) -> Tensor:
        """World directions (..., 3) in camera axes."""
        return directions @ self.R.T

    def project(self, points: Tensor) -> Tensor:
        """World points (..., 3) to continuous pixel coordinates (..., 2)."""
        cam = self.world_to_camera(points)
        return cam[..., :2] / cam[..., 2:] * self.focal + self.princpt

    def crop(self, bbox: Tensor, height: int, width: int) -> Camera:
        """Camera of the image region bbox (x, y, w, h in pixels) resized to height x width (SPEC 3, face camera)."""
        scale = torch.tensor([width, height], dtype=bbox.dtype, device=bbox.device) / bbox[2:]
        return replace(
            self,
            focal=self.focal * scale,
            princpt=(self.princpt - bbox[:2]) * scale,
            height=height,
            width=width,
        )

    def to(self, *args: Any) -> Camera:
        """The same camera on another device or dtype."""
        return replace(
            self,
            R=self.R.to(*args),
            t=self.t.to(*args),
            focal=self.focal.to(*args),
            princpt=self.princpt.to(*args),
        )

    @staticmethod
    def identity(focal: tuple[float, float], princpt: tuple[float, float], height: int, width: int) -> Camera:
        """A camera at the world's origin (R = I, t = 0), float32 on the CPU."""
        return Camera(torch.eye(3), torch.zeros(3), torch.tensor(focal), torch.tensor(princpt), height, width)
