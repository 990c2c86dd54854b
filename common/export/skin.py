"""The base avatar as a linear skin: bind pose, skeleton, few weights a vertex, expression shapes, and a motion of it.

The base avatar of a pose is sum_j w_j G_j(pose) G_j(neutral)^-1 (v + expression), with G_j the joint's global
transform (SPEC 9): what any engine's linear blend skinning computes. The refined avatar's pose-driven offsets are
not linear in that sense and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from smplx.lbs import batch_rigid_transform
from torch import Tensor

from common.avatar import Avatar, apply_transforms, blend_transforms
from common.camera import Camera
from common.export.placement import Placement
from common.joints import N_JOINTS
from common.pose import SmplxParams, SmplxPose

MIN_SHAPE_M = 1e-6  # a vertex that an expression moves less than this is left out of its shape


@dataclass(frozen=True)
class Skin:
    """N vertices in the neutral pose, y-up, and how the joints move them."""

    vertices: Tensor  # (N, 3) metres, bind pose
    joint_index: Tensor  # (N, K) int64, largest weight first
    joint_weight: Tensor  # (N, K), rows sum to 1
    rest_joints: Tensor  # (55, 3) metres, zero pose
    inverse_bind: Tensor  # (55, 4, 4) from the bind pose to each joint's own space
    shapes: Tensor  # (E, N, 3) metres, displacement in the bind pose by expression coefficient


@dataclass(frozen=True)
class SkeletonPose:
    """Joints relative to their parents; those of the root relative to the file's world."""

    rotation: Tensor  # (55, 3, 3)
    root_translation: Tensor  # (3,) metres
    expr: Tensor  # (E,)


@torch.no_grad()
def skin_of(avatar: Avatar, n_weights: int, n_expressions: int) -> Skin:
    """The base avatar's skin with the `n_weights` largest weights of each vertex, scaled to sum 1."""
    base = avatar.neutral_vertices + avatar.mean_offset
    weight, index = avatar.skinning_weights(base).topk(n_weights, dim=1)
    weight = F.normalize(weight, p=1.0, dim=1)
    neutral = SmplxPose.from_params(avatar.body.neutral_pose_params(jaw_open=False))
    return Skin(
        vertices=base,
        joint_index=torch.where(weight > 0, index, 0),
        joint_weight=weight,
        rest_joints=avatar.zero_pose_joints,
        inverse_bind=torch.linalg.inv(global_transforms(neutral.rotation, avatar.zero_pose_joints, avatar)),
        shapes=avatar.body.expr_dirs_high[:, :, :n_expressions].permute(2, 0, 1),
    )


def global_transforms(rotation: Tensor, rest_joints: Tensor, avatar: Avatar) -> Tensor:
    """Global joint transforms (55, 4, 4) of joint rotations (55, 3, 3) about joints at rest (55, 3)."""
    position, relative = batch_rigid_transform(rotation[None], rest_joints[None], avatar.body.parents)
    return torch.cat([relative[0, :, :, :3], F.pad(position[0], (0, 1), value=1.0)[:, :, None]], dim=2)


def neutral_skeleton(avatar: Avatar, n_expressions: int) -> SkeletonPose:
    """The bind pose itself: y-up, where the neutral pose stands."""
    pose = SmplxPose.from_params(avatar.body.neutral_pose_params(jaw_open=False))
    return SkeletonPose(pose.rotation, avatar.zero_pose_joints[0], pose.expr[:n_expressions])


def posed_skeleton(
    avatar: Avatar, params: SmplxParams, camera: Camera, placement: Placement, n_expressions: int
) -> SkeletonPose:
    """A camera-space pose, moved out of the camera's space and placed."""
    pose = SmplxPose.from_params(params)
    out = placement.after(camera)
    return SkeletonPose(
        rotation=torch.cat([out.rotation @ pose.rotation[:1], pose.rotation[1:]]),
        root_translation=out.points(avatar.zero_pose_joints[0] + pose.trans),
        expr=pose.expr[:n_expressions],
    )


@torch.no_grad()
def skinned_vertices(skin: Skin, skeleton: SkeletonPose, avatar: Avatar) -> Tensor:
    """Vertices (N, 3) of the skin in a pose by plain linear blend skinning."""
    rest = skin.rest_joints - skin.rest_joints[:1] + skeleton.root_translation
    transforms = global_transforms(skeleton.rotation, rest, avatar) @ skin.inverse_bind
    weights = torch.zeros(len(skin.vertices), N_JOINTS).to(skin.vertices)
    weights.scatter_add_(1, skin.joint_index, skin.joint_weight)
    bind = skin.vertices + torch.einsum("e,enc->nc", skeleton.expr, skin.shapes)
    return apply_transforms(blend_transforms(weights, transforms), bind)


@torch.no_grad()
def skinning_error(avatar: Avatar, skin: Skin, frames: Sequence[tuple[SmplxParams, Camera]]) -> Tensor:
    """Distances (T, N) in metres of the skin from the avatar's base surface, which has all weights and expressions."""
    placement = Placement.of_motion(frames[0][1], "y")
    errors = []
    for params, camera in frames:
        expected = placement.points(avatar(SmplxPose.from_params(params), camera).base_mean)
        skeleton = posed_skeleton(avatar, params, camera, placement, len(skin.shapes))
        errors.append((skinned_vertices(skin, skeleton, avatar) - expected).norm(dim=1))
    return torch.stack(errors)
