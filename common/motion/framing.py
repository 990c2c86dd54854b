"""Cameras that show a whole motion: from the front, following the person, or around the person."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.camera import Camera

ROOM = 0.92  # of the image's half width and height may be filled
NEAREST_M = 1.0  # from the camera to the nearest point of the body
SMOOTH_S = 0.35  # standard deviation of the smoothing of the way that cameras follow, seconds
FOCAL_PER_SIDE = 1.5  # default focal length, in longer image sides
_TURNED = 0.3  # a mean facing direction shorter than this says nothing


@dataclass(frozen=True)
class Lens:
    """Image size and focal length in pixels; the principal point is the centre."""

    height: int
    width: int
    focal: float

    def camera(self, R: Tensor, t: Tensor) -> Camera:
        """A float32 camera with this lens."""
        focal = torch.full((2,), self.focal)
        princpt = torch.tensor([self.width / 2, self.height / 2])
        return Camera(R.float(), t.float(), focal, princpt, self.height, self.width)

    def distance(self, points: Tensor) -> float:
        """How far the camera must stand from the origin of points (..., 3), in its axes, to see them all."""
        high, low, near = self._needs(points)
        return float(torch.stack([*high, *low, near]).max())

    def place(self, points: Tensor) -> Tensor:
        """The camera's place (3,), in its axes, nearest to points (..., 3) of which all are seen.

        On each axis the room on both sides is the same.
        """
        high, low, near = self._needs(points)
        middle = (high - low) / 2 * self._slopes(points)
        return torch.cat([middle, -torch.stack([*(high + low) / 2, near]).max()[None]])

    def _needs(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distances that the points need on the far side of each axis (2,), on the near side (2,), and for z."""
        across, depth = points.reshape(-1, 3)[:, :2] / self._slopes(points), points.reshape(-1, 3)[:, 2:]
        return (across - depth).amax(0), (-across - depth).amax(0), (NEAREST_M - depth).max()

    def _slopes(self, like: Tensor) -> Tensor:
        """Tangents (2,) of half the angles of view that may be filled."""
        return like.new_tensor([self.width, self.height]) * (ROOM / (2 * self.focal))


def front_cameras(points: Tensor, facing: Tensor, lens: Lens) -> list[Camera]:
    """One fixed camera for all frames of points (T, P, 3), in the world with y down, before the person."""
    R = looking_along(-facing)
    return [lens.camera(R, -lens.place(points @ R.T))] * len(points)


def follow_cameras(points: Tensor, way: Tensor, facing: Tensor, lens: Lens) -> list[Camera]:
    """Cameras that look from the front and move along with the person's way (T, 3)."""
    return _around(points, way, [looking_along(-facing)] * len(points), lens)


def orbit_cameras(points: Tensor, way: Tensor, facing: Tensor, lens: Lens) -> list[Camera]:
    """Cameras that move along with the person and once around, beginning at the front."""
    start = math.atan2(-float(facing[0]), -float(facing[2]))
    azimuths = [start + 2 * math.pi * i / len(points) for i in range(len(points))]
    directions = [points.new_tensor([math.sin(a), 0.0, math.cos(a)]) for a in azimuths]
    return _around(points, way, [looking_along(direction) for direction in directions], lens)


def _around(points: Tensor, way: Tensor, rotations: Sequence[Tensor], lens: Lens) -> list[Camera]:
    """Cameras with these rotations at one distance from the way, from which every frame is seen in full."""
    local = points - way[:, None]
    middle = (local[..., 1].amin() + local[..., 1].amax()) / 2
    centres = way + middle * way.new_tensor([0.0, 1.0, 0.0])
    R = torch.stack(list(rotations))
    seen = torch.einsum("tij,tpj->tpi", R, points - centres[:, None])
    depth = points.new_tensor([0.0, 0.0, lens.distance(seen)])
    t = depth - torch.einsum("tij,tj->ti", R, centres)
    return [lens.camera(rotation, shift) for rotation, shift in zip(R, t, strict=True)]


def looking_along(direction: Tensor) -> Tensor:
    """World-to-camera rotation (3, 3) of a level camera that looks along a horizontal direction (3,)."""
    z = direction / direction.norm()
    y = direction.new_tensor([0.0, 1.0, 0.0])
    return torch.stack([torch.linalg.cross(y, z), y, z])


def facing_direction(root: Tensor) -> Tensor:
    """Horizontal direction (3,) that a person with root rotations (T, 3, 3) faces, in the world with y down.

    The mean over the motion; its first frame's where it turns around; the world's -z where it lies down.
    """
    ahead = root[:, :, 2] * root.new_tensor([1.0, 0.0, 1.0])
    for candidate in (ahead.mean(0), ahead[0]):
        if candidate.norm() > _TURNED:
            return candidate / candidate.norm()
    return root.new_tensor([0.0, 0.0, -1.0])


def smooth_way(pelvis: Tensor, fps: float) -> Tensor:
    """The way (T, 3) of the pelvis without steps and jitter."""
    from scipy.ndimage import gaussian_filter1d

    smooth = gaussian_filter1d(pelvis.numpy().astype(np.float64), SMOOTH_S * fps, axis=0, mode="nearest")
    return torch.from_numpy(smooth)
