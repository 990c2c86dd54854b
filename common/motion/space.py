"""Moving a motion from one coordinate frame to another.

The root turns about the pelvis J of the rest pose: x = R (x0 - J) + J + trans. So after x -> A x + b the same body
has the root rotation A R and the translation A (trans + J) + b - J.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from common.camera import Camera
from common.motion.motion import Motion
from common.motion.options import Up
from common.pose import SmplxParams
from common.rotation import rotmat_to_rotvec, rotvec_to_rotmat

logger = logging.getLogger(__name__)

# Rotations into the world that cameras are placed in: x right, y down, z forward.
TO_Y_DOWN: dict[Up, tuple[tuple[float, ...], ...]] = {
    "camera": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "y": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "z": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
}
_UP_AXES: dict[Up, tuple[float, float, float]] = {"camera": (0, -1, 0), "y": (0, 1, 0), "z": (0, 0, 1)}
_CLEARLY, _HARDLY = 0.8, 0.3  # mean cosine of the person's own up axis with an axis of the world


def change_frame(params: SmplxParams, A: Tensor, b: Tensor, pelvis: Tensor) -> SmplxParams:
    """Stacked float64 parameters after x -> A x + b; A (T or 1, 3, 3), b (T or 1, 3), pelvis (3,) at rest."""
    root = rotvec_to_rotmat(params.root_pose)
    trans = torch.einsum("tij,tj->ti", A.expand(len(root), 3, 3), params.trans + pelvis) + b - pelvis
    return replace(params, root_pose=rotmat_to_rotvec(A @ root), trans=trans)


def about_pelvis(motion: Motion, pelvis: Tensor) -> Motion:
    """The motion with roots that turn about the pelvis: R x0 + t = R (x0 - J) + J + (t + R J - J)."""
    if motion.pivot == "pelvis":
        return motion
    turned = rotvec_to_rotmat(motion.params.root_pose.double()) @ pelvis
    trans = (motion.params.trans.double() + turned - pelvis).to(motion.params.trans.dtype)
    return replace(motion, params=replace(motion.params, trans=trans), pivot="pelvis")


def to_world(motion: Motion, pelvis: Tensor) -> SmplxParams:
    """Stacked float64 parameters in the world with y down; for a motion with cameras, in the cameras' world."""
    params = motion.params.to(torch.float64)
    if motion.cameras is None:
        A = torch.tensor(TO_Y_DOWN[motion.up], dtype=torch.float64)[None]
        return change_frame(params, A, torch.zeros(1, 3, dtype=torch.float64), pelvis)
    R, t = _stacked(motion.cameras)
    A = R.transpose(1, 2)
    return change_frame(params, A, -torch.einsum("tij,tj->ti", A, t), pelvis)


def to_cameras(params: SmplxParams, cameras: Sequence[Camera], pelvis: Tensor) -> SmplxParams:
    """World parameters (float64) in each frame's camera space."""
    return change_frame(params, *_stacked(cameras), pelvis)


def _stacked(cameras: Sequence[Camera]) -> tuple[Tensor, Tensor]:
    R = torch.stack([camera.R for camera in cameras]).double()
    t = torch.stack([camera.t for camera in cameras]).double()
    return R, t


def warn_if_not_upright(motion: Motion) -> None:
    """Log a warning where the person clearly stands along another axis than `motion.up` says."""
    up = rotvec_to_rotmat(motion.params.root_pose.double())[:, :, 1].mean(0)
    cosines = {name: float(up @ torch.tensor(axis, dtype=up.dtype)) for name, axis in _UP_AXES.items()}
    best = max(cosines, key=lambda name: cosines[name])
    if best != motion.up and cosines[best] > _CLEARLY and cosines[motion.up] < _HARDLY:
        logger.warning(
            "%s is read with --up %s, but its person stands along the axis of --up %s",
            motion.name,
            motion.up,
            best,
        )
