"""What placing a motion needs of a body: where it turns, where its surface is, how its hands rest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.avatar import Avatar, joint_transforms
from common.body_model.body import BodyModel
from common.body_model.identity import Identity
from common.pose import SmplxPose

_N_SPREAD = 300  # points taken evenly over the surface, besides the extreme ones
_FRAMES_AT_ONCE = 256  # bounds the memory of blended transforms


@dataclass(frozen=True)
class Figure:
    """A light stand-in for a person, float64 on the CPU; P points of the surface."""

    joints: Tensor  # (55, 3) metres, zero pose
    parents: Tensor  # (55,)
    points: Tensor  # (P, 3) metres, neutral pose
    weights: Tensor  # (P, 55)
    neutral_to_zero: Tensor  # (55, 4, 4)
    hand_mean: Tensor  # (30, 3) axis-angle

    @property
    def pelvis(self) -> Tensor:
        """The joint (3,) about which `root_pose` turns."""
        return self.joints[0]

    @staticmethod
    @torch.no_grad()
    def of_avatar(avatar: Avatar) -> Figure:
        """The avatar's own joints and surface, hair and clothes included."""
        surface = (avatar.neutral_vertices + avatar.mean_offset).cpu()
        return _figure(avatar.body, avatar.zero_pose_joints, surface, avatar.body.skinning_weights_high)

    @staticmethod
    @torch.no_grad()
    def of_body(body: BodyModel, identity: Identity | None = None) -> Figure:
        """A body without an avatar; None: the template's identity."""
        surface = body.neutral_vertices(identity, jaw_open=False)
        return _figure(body, body.zero_pose_joints(identity), surface, body.skinning_weights)

    def posed_joints(self, rotation: Tensor, trans: Tensor) -> Tensor:
        """Joints (T, 55, 3) of rotations (T, 55, 3, 3) and translations (T, 3), in their space."""
        return self._kinematics(rotation)[0] + trans[:, None]

    def posed_points(self, rotation: Tensor, trans: Tensor) -> Tensor:
        """Surface points (T, P, 3) of rotations (T, 55, 3, 3) and translations (T, 3), in their space."""
        homogeneous = F.pad(self.points, (0, 1), value=1.0)
        parts = []
        for some in rotation.split(_FRAMES_AT_ONCE):
            transforms = (self._kinematics(some)[1] @ self.neutral_to_zero)[:, :, :3]
            blended = torch.einsum("pj,tjab->tpab", self.weights, transforms)
            parts.append(torch.einsum("tpab,pb->tpa", blended, homogeneous))
        return torch.cat(parts) + trans[:, None]

    def _kinematics(self, rotation: Tensor) -> tuple[Tensor, Tensor]:
        from smplx.lbs import batch_rigid_transform  # late: importing smplx is slow

        joints = self.joints.expand(len(rotation), -1, -1)
        return batch_rigid_transform(rotation, joints, self.parents, dtype=self.joints.dtype)


def _figure(body: BodyModel, joints: Tensor, surface: Tensor, weights: Tensor) -> Figure:
    joints, surface, weights = (value.detach().double().cpu() for value in (joints, surface, weights))
    neutral = SmplxPose.from_params(body.neutral_pose_params(jaw_open=False).to(torch.float64)).rotation.cpu()
    chosen = _telling_points(surface, weights)
    return Figure(
        joints=joints,
        parents=body.parents,
        points=surface[chosen],
        weights=weights[chosen],
        neutral_to_zero=torch.linalg.inv(joint_transforms(neutral, joints, body.parents)),
        hand_mean=body.hand_mean.detach().double().cpu(),
    )


def _telling_points(surface: Tensor, weights: Tensor) -> Tensor:
    """Indices of points that span the surface: the outermost ones of every joint, and some evenly chosen."""
    chosen = {0, *range(0, len(surface), max(1, len(surface) // _N_SPREAD))}
    dominant = weights.argmax(1)
    for joint in dominant.unique():
        members = (dominant == joint).nonzero().squeeze(1)
        for extreme in (surface[members].argmin(0), surface[members].argmax(0)):
            chosen.update(members[extreme].tolist())
    return torch.tensor(sorted(chosen))
