"""SMPL-X pose parameters: the axis-angle form of files and the matrix form that is computed with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from common.joints import N_BODY_POSE, N_EXPR, N_JOINTS, POSE_PARAMS
from common.rotation import gram_schmidt, rotvec_to_rotmat


@dataclass(frozen=True)
class SmplxParams:
    """One frame's SMPL-X parameters as in `smplx_params/i.json`: axis-angle, camera space, metres."""

    root_pose: Tensor  # (3,)
    body_pose: Tensor  # (21, 3)
    jaw_pose: Tensor  # (3,)
    leye_pose: Tensor  # (3,)
    reye_pose: Tensor  # (3,)
    lhand_pose: Tensor  # (15, 3)
    rhand_pose: Tensor  # (15, 3)
    expr: Tensor  # (50,)
    trans: Tensor  # (3,)

    def to(self, *args: Any) -> SmplxParams:
        """The same parameters on another device or dtype."""
        return SmplxParams(**{f.name: getattr(self, f.name).to(*args) for f in fields(self)})

    @staticmethod
    def zeros() -> SmplxParams:
        """The zero pose: all rotations identity, no expression, at the origin."""
        poses = {name: torch.zeros(n, 3) if n > 1 else torch.zeros(3) for name, n in POSE_PARAMS.items()}
        return SmplxParams(**poses, expr=torch.zeros(N_EXPR), trans=torch.zeros(3))


@dataclass(frozen=True)
class SmplxPose:
    """One frame's pose as rotation matrices in joint order (common.joints.JOINTS)."""

    rotation: Tensor  # (55, 3, 3)
    expr: Tensor  # (50,)
    trans: Tensor  # (3,) metres, camera space

    @property
    def body_rotation(self) -> Tensor:
        """Rotations (21, 3, 3) of the body joints without the root."""
        return self.rotation[1 : 1 + N_BODY_POSE]

    @staticmethod
    def from_params(params: SmplxParams) -> SmplxPose:
        """Matrix form of axis-angle parameters."""
        axis_angle = torch.cat([getattr(params, name).reshape(-1, 3) for name in POSE_PARAMS])
        if axis_angle.shape != (N_JOINTS, 3):
            raise ValueError(f"pose parameters give {tuple(axis_angle.shape)} rotations, expected (55, 3)")
        return SmplxPose(rotvec_to_rotmat(axis_angle), params.expr, params.trans)

    def to(self, *args: Any) -> SmplxPose:
        """The same pose on another device or dtype."""
        return SmplxPose(self.rotation.to(*args), self.expr.to(*args), self.trans.to(*args))


def stack_params(frames: Sequence[SmplxParams]) -> SmplxParams:
    """Parameters of single frames with a leading axis of frames."""
    return SmplxParams(
        **{f.name: torch.stack([getattr(frame, f.name) for frame in frames]) for f in fields(SmplxParams)}
    )


def rotation_vectors(params: SmplxParams) -> Tensor:
    """All rotations (T, 55, 3) of stacked parameters in joint order."""
    return torch.cat([getattr(params, name).reshape(len(params.trans), -1, 3) for name in POSE_PARAMS], dim=1)


def rotation_to_6d(rotation: Tensor) -> Tensor:
    """First two rows of rotation matrices (..., 3, 3) as (..., 6) (Zhou et al. 2019; SPEC 6)."""
    return rotation[..., :2, :].reshape(*rotation.shape[:-2], 6)


def rotation_from_6d(six: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) whose first two rows are the orthonormalised halves of (..., 6)."""
    columns = six.reshape(*six.shape[:-1], 2, 3).transpose(-1, -2)
    return gram_schmidt(columns).transpose(-1, -2)
