"""Where the demo subject stands before the camera, and what is behind it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import zoom
from torch import Tensor

from common.camera import Camera
from common.demo.subject_geometry import TrueSubject
from common.demo.subject_settings import SubjectSize
from common.pose import SmplxParams, SmplxPose

FOCAL_PER_HEIGHT = 1.9  # about 30 degrees from top to bottom
MARGIN = 0.94  # of the image may be filled
MAX_RETREAT = 1.12  # how much farther than the height needs the camera goes for spread arms


@dataclass(frozen=True)
class Shot:
    """A posed person before a camera: exact parameters and the dressed mesh, camera coordinates."""

    params: SmplxParams
    vertices: Tensor  # (N, 3)
    camera: Camera
    cloth: Tensor  # (N, 3) the cloth's pose-driven offset, neutral pose, metres


def place_shots(
    subject: TrueSubject,
    frames: list[SmplxParams],
    size: SubjectSize,
    rng: np.random.Generator,
    extra: Tensor | None = None,
) -> list[Shot]:
    """Stand the posed person on a floor at such a distance that the whole clip fills the image.

    One camera at the world's origin for all frames; it gets nearly everything into view, but cuts off widely
    spread arms in a narrow image. `extra` (N, 3) is added to the mesh in the neutral pose.
    """
    poses = [SmplxPose.from_params(params) for params in frames]
    cloths = [subject.pose_offset(pose) for pose in poses]
    moved = [cloth if extra is None else cloth + extra for cloth in cloths]
    vertices = [subject.vertices(pose, offset) for pose, offset in zip(poses, moved, strict=True)]
    n_frames = len(frames)
    sway = 0.03 * np.sin(np.linspace(0, 4, n_frames) + rng.uniform(0, 6))  # metres, to and fro
    feet = [float(v[:, 1].max()) for v in vertices]
    shifts = [torch.tensor([float(sway[i]), -feet[i], 0.0]) for i in range(n_frames)]
    cloud = torch.cat([v[::7] + shift for v, shift in zip(vertices, shifts, strict=True)]).double().numpy()
    focal = FOCAL_PER_HEIGHT * size.height
    distance = _fit_distance(cloud, 1, focal, size.height * MARGIN)
    distance = float(
        np.clip(_fit_distance(cloud, 0, focal, size.width * MARGIN), distance, MAX_RETREAT * distance)
    )
    middle = _middle(cloud, 1, distance)
    camera = Camera.identity((focal, focal), (size.width / 2, size.height / 2), size.height, size.width)
    shots = []
    for params, points, cloth, shift in zip(frames, vertices, cloths, shifts, strict=True):
        trans = shift + torch.tensor([0.0, -middle, distance])
        shots.append(Shot(replace(params, trans=trans), points + trans, camera, cloth))
    return shots


def _extent(cloud: np.ndarray, axis: int, distance: float) -> tuple[float, float]:
    """Range of projected positions, in units of the focal length."""
    ratio = cloud[:, axis] / (cloud[:, 2] + distance)
    return float(ratio.min()), float(ratio.max())


def _middle(cloud: np.ndarray, axis: int, distance: float) -> float:
    """The shift along an axis, metres, that centres the projection (to first order)."""
    low, high = _extent(cloud, axis, distance)
    return 0.5 * (low + high) * distance


def _fit_distance(cloud: np.ndarray, axis: int, focal: float, room_px: float) -> float:
    """Smallest distance at which the centred points (M, 3) take at most room_px along an axis."""
    near, far = 1.5, 12.0
    for _ in range(30):
        distance = 0.5 * (near + far)
        low, high = _extent(cloud, axis, distance)
        if axis == 0:  # the person stays in the middle
            low, high = -max(-low, high), max(-low, high)
        near, far = (distance, far) if focal * (high - low) > room_px else (near, distance)
    return far


def backdrop(size: SubjectSize, rng: np.random.Generator) -> np.ndarray:
    """A plain room (H, W, 3): a wall with a soft gradient, a skirting board, a floor, faint stains."""
    height, width = size.height, size.width
    wall = rng.uniform(0.62, 0.80) + rng.uniform(-0.06, 0.06, 3)
    floor = wall * rng.uniform(0.55, 0.75) + rng.uniform(-0.03, 0.03, 3)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = y / height, x / width
    light = 1.08 - 0.18 * np.hypot(x - 0.3, y - 0.2)
    horizon = 0.86
    image = np.where((y < horizon)[..., None], wall, floor) * light[..., None]
    image[(y > horizon - 0.012) & (y < horizon)] *= 0.86
    stains = zoom(rng.standard_normal((8, 6)), (height / 8, width / 6), order=1)[:height, :width]
    image = image + 0.012 * stains[..., None]
    return np.clip(image, 0, 1).astype(np.float32)
