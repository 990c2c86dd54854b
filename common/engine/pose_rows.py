"""What an avatar's picture depends on in each frame, as one row of numbers (SPEC 9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.avatar import Avatar
from common.camera import Camera
from common.joints import N_BODY_POSE, N_EXPR, N_JOINTS
from common.pose import SmplxParams, rotation_to_6d, rotation_vectors, stack_params
from common.rotation import rotvec_to_rotmat

BLEND_COLUMNS = 16  # a joint transform (3, 4) row by row, a one that sums the weights, and zeros
WEIGHT_COLUMN = 12
_SIZES = (N_JOINTS * BLEND_COLUMNS, N_BODY_POSE * 6, N_EXPR, 9, 3, 2, 2)
ROW_SIZE = sum(_SIZES)


@dataclass(frozen=True)
class PoseRow:
    """Named views into one row."""

    blend: Tensor  # (55, 16) joint transforms from the neutral to the target pose, then 1, then zeros
    pose_6d: Tensor  # (21, 6) body rotations
    expr: Tensor  # (50,)
    camera: Camera

    @staticmethod
    def of(row: Tensor, height: int, width: int) -> PoseRow:
        """The parts of a row (ROW_SIZE,)."""
        blend, pose_6d, expr, rotation, translation, focal, princpt = row.split(_SIZES)
        return PoseRow(
            blend.view(N_JOINTS, BLEND_COLUMNS),
            pose_6d.view(N_BODY_POSE, 6),
            expr,
            Camera(rotation.view(3, 3), translation, focal, princpt, height, width),
        )


class PoseRows:
    """Makes rows of poses and cameras, many frames in one go, on the CPU."""

    def __init__(self, avatar: Avatar) -> None:
        self.joints = avatar.zero_pose_joints.detach().cpu().float()
        self.neutral_to_zero = avatar.neutral_to_zero.detach().cpu().float()
        self.parents = avatar.body.parents

    @torch.no_grad()
    def pack(self, params: Sequence[SmplxParams], cameras: Sequence[Camera]) -> Tensor:
        """Rows (F, ROW_SIZE) float32 of F frames."""
        from smplx.lbs import batch_rigid_transform

        n = len(params)
        stacked = stack_params(params)
        rotation = rotvec_to_rotmat(rotation_vectors(stacked).float().cpu())  # (F, 55, 3, 3)
        trans = stacked.trans.float().cpu()
        _, transforms = batch_rigid_transform(rotation, self.joints.expand(n, -1, -1), self.parents)
        transforms = transforms @ self.neutral_to_zero
        transforms = transforms + F.pad(trans[:, None, :, None], (3, 0, 0, 1))
        blend = torch.zeros(n, N_JOINTS, BLEND_COLUMNS)
        blend[:, :, :WEIGHT_COLUMN] = transforms[:, :, :3].reshape(n, N_JOINTS, WEIGHT_COLUMN)
        blend[:, :, WEIGHT_COLUMN] = 1
        pose_6d = rotation_to_6d(rotation[:, 1 : 1 + N_BODY_POSE])
        parts = [blend, pose_6d, stacked.expr]
        for name in ("R", "t", "focal", "princpt"):
            parts.append(torch.stack([getattr(camera, name) for camera in cameras]))
        return torch.cat([part.reshape(n, -1).float().cpu() for part in parts], dim=1)
