"""The avatar: isotropic opaque Gaussians on a subdivided body mesh, with pose-driven offsets (SPEC 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from smplx.lbs import batch_rigid_transform
from torch import Tensor, nn

from common import determinism, gpu
from common.body_model.body import BodyModel
from common.body_model.identity import Identity
from common.camera import Camera
from common.gaussians import Gaussians
from common.joints import N_BODY_POSE
from common.pose import SmplxPose, rotation_to_6d
from common.skinning_field import SkinningField
from main.config import AvatarConfig

if TYPE_CHECKING:
    from common.gpu.net import PlaneCorners

N_POSE_FEATURES = N_BODY_POSE * 6


@dataclass(frozen=True)
class Appearance:
    """Colours of N Gaussians, activated, in [0, 1]."""

    rgb: Tensor  # (N, 3) the avatar's own colour
    rgb_aux: Tensor  # (N, 3) absorbs the generated videos' drifting colour
    seg: Tensor  # (N, 3) part colours


@dataclass(frozen=True)
class PosedAvatar:
    """One avatar in one pose; world space unless said otherwise."""

    vertices: Tensor  # (N, 3) the body with identity and expression, no offsets
    base_mean: Tensor  # (N, 3) with mean_offset
    refined_mean: Tensor  # (N, 3) with mean_offset and the pose-driven offset
    base_neutral: Tensor  # (N, 3) neutral pose, no expression, with mean_offset
    refined_neutral: Tensor  # (N, 3) the same with the pose-driven offset
    scale: Tensor  # (N, 1) metres
    appearance: Appearance

    @property
    def base(self) -> Gaussians:
        """Gaussians without the pose-driven offset."""
        return Gaussians(self.base_mean, self.scale, self.appearance.rgb)

    @property
    def refined(self) -> Gaussians:
        """Gaussians with the pose-driven offset."""
        return Gaussians(self.refined_mean, self.scale, self.appearance.rgb)


class Avatar(nn.Module):
    """Parameters and posing of one person; `state_dict` has the published `persona.*` keys (SPEC 5)."""

    shape_param: Tensor  # (100,)
    face_offset: Tensor  # (V, 3) metres
    joint_offset: Tensor  # (55, 3) metres
    neutral_vertices: Tensor  # (N, 3) metres, neutral pose with identity, closed jaw
    zero_pose_joints: Tensor  # (55, 3) metres
    neutral_to_zero: Tensor  # (55, 4, 4) joint transforms from the neutral to the zero pose
    triplane_points: Tensor  # (N, 3) in [-1, 1] inside the planes' cube
    diffused_index: Tensor  # Gaussians that take their weights from the field: neither hands nor face
    moving_index: Tensor  # Gaussians that the pose can move: neither hands, expression nor eyes

    def __init__(
        self,
        config: AvatarConfig,
        body: BodyModel,
        skinning_field: SkinningField,
        identity: Identity,
    ) -> None:
        """An untrained avatar: zero offsets and tri-plane, zero logits, random offset net (torch's seed)."""
        super().__init__()
        self.config = config
        self.body = body
        self.skinning_field = skinning_field
        n, hidden = body.n_vertices_high, config.n_hidden
        size = config.triplane_resolution
        n_features = 3 * config.triplane_channels

        self.triplane = nn.Parameter(torch.zeros(3, config.triplane_channels, size, size))
        self.mean_offset_offset_net = nn.Sequential(
            nn.Linear(n_features + N_POSE_FEATURES, hidden),
            nn.GroupNorm(config.n_groups, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.GroupNorm(config.n_groups, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.GroupNorm(config.n_groups, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 3),
        )
        self.mean_offset = nn.Parameter(torch.zeros(n, 3))  # metres, neutral pose
        self.scale = nn.Parameter(torch.zeros(n, 1))  # log metres
        self.rgb = nn.Parameter(torch.zeros(n, 3))  # logits
        self.rgb_aux = nn.Parameter(torch.zeros(n, 3))
        self.seg = nn.Parameter(torch.zeros(n, 3))
        self.register_buffer("shape_param", identity.shape)
        self.register_buffer("face_offset", identity.face_offset)
        self.register_buffer("joint_offset", identity.joint_offset)

        self._plane_corners: PlaneCorners | None = None  # where the GPU's kernels find the planes' features
        self._precompute(identity)

    @torch.no_grad()
    def _precompute(self, identity: Identity) -> None:
        """Everything that depends on body and identity alone."""
        body = self.body
        interpolate = body.subdivider.interpolate
        joints = body.zero_pose_joints(identity)
        neutral_pose = SmplxPose.from_params(body.neutral_pose_params(jaw_open=False).to(joints.dtype))
        to_neutral = joint_transforms(neutral_pose.rotation, joints, body.parents)
        template = interpolate(body.neutral_vertices(None, jaw_open=True))
        parts = body.parts_high
        constants = {
            "neutral_vertices": interpolate(body.neutral_vertices(identity, jaw_open=False)),
            "zero_pose_joints": joints,
            "neutral_to_zero": torch.linalg.inv(to_neutral),
            "triplane_points": (template - template.mean(0)) / (self.config.triplane_extent_m / 2),
            "diffused_index": (~(parts.hand | parts.face)).nonzero().squeeze(1),
            "moving_index": (~(parts.hand | parts.expression | parts.eye)).nonzero().squeeze(1),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    @property
    def identity(self) -> Identity:
        """The identity that is stored in the snapshot."""
        return Identity(self.shape_param, self.face_offset, self.joint_offset)

    @property
    def appearance(self) -> Appearance:
        """Activated colours."""
        rgb_aux = self.rgb if self.config.without_aux_rgb else self.rgb_aux
        return Appearance(torch.sigmoid(self.rgb), torch.sigmoid(rgb_aux), torch.sigmoid(self.seg))

    def skinning_weights(self, mean: Tensor) -> Tensor:
        """Weights (N, 55): the body's own for hands and face, the diffused field's at `mean` elsewhere."""
        sampled = self.skinning_field.sample(
            mean.index_select(0, self.diffused_index),
            torch.exp(self.scale.detach().index_select(0, self.diffused_index)),
        )
        return self.body.skinning_weights_high.index_copy(0, self.diffused_index, sampled)

    def triplane_features(self) -> Tensor:
        """Features (M, 96) of the vertices that can move with the pose: planes xy, xz, yz."""
        points = self.triplane_points[self.moving_index]
        if gpu.is_on(points) and _is_power_of_two(self.triplane.shape[1]):
            from common.gpu.net import plane_corners, sample_planes

            if self._plane_corners is None:
                self._plane_corners = plane_corners(points, self.triplane.shape[-1])
            return sample_planes(self.triplane, self._plane_corners)
        grid = torch.stack([points[:, [0, 1]], points[:, [0, 2]], points[:, [1, 2]]])  # (3, M, 2)
        if determinism.needs_fixed_order(points):
            features = determinism.sample_planes(self.triplane, grid)
        else:
            features = F.grid_sample(self.triplane, grid[:, :, None], mode="bilinear", align_corners=False)
        return features.reshape(*features.shape[:3]).permute(2, 0, 1).reshape(len(points), -1)

    def pose_offset(self, pose: SmplxPose, weights: Tensor) -> Tensor:
        """Pose-driven offsets (N, 3) in metres; `weights` (N, 55) are those of the base avatar.

        A vertex sees the body joints within 4 rings of its dominant joint, so the pose part of the
        first layer takes one of 55 values and is computed once a joint.
        """
        if self.config.without_pose_offsets:
            return torch.zeros_like(self.neutral_vertices)
        first, *rest = self.mean_offset_offset_net
        assert isinstance(first, nn.Linear)
        dominant = weights.detach().index_select(0, self.moving_index).argmax(1)
        pose_6d = rotation_to_6d(pose.body_rotation.detach())  # (21, 6)
        seen = self.body.kinematic_reach[:, 1 : 1 + N_BODY_POSE, None] * pose_6d  # (55, 21, 6)
        features = self.triplane_features()
        n_features = features.shape[1]
        by_joint = seen.reshape(len(seen), -1) @ first.weight[:, n_features:].T  # (55, hidden)
        hidden = F.linear(features, first.weight[:, :n_features], first.bias) + _pick(by_joint, dominant)
        hidden = _hidden_layers(hidden, rest)
        offset = hidden / self.config.offset_divisor
        return torch.zeros_like(self.neutral_vertices).index_copy(0, self.moving_index, offset)

    def transforms(self, pose: SmplxPose) -> Tensor:
        """Joint transforms (55, 4, 4) from the neutral pose to `pose` in camera space, `trans` included."""
        to_target = joint_transforms(pose.rotation, self.zero_pose_joints, self.body.parents)
        transform = to_target @ self.neutral_to_zero
        return transform + F.pad(pose.trans[:, None], (3, 0, 0, 1))

    @torch.no_grad()
    def body_vertices(self, pose: SmplxPose, camera: Camera) -> Tensor:
        """Low-resolution vertices (V, 3) of the full SMPL-X function with this identity, world space, constants."""
        return camera.camera_to_world(self.body.vertices(pose, self.identity).vertices)

    def forward(self, pose: SmplxPose, camera: Camera) -> PosedAvatar:
        """The avatar in a camera-space pose, moved to world space."""
        base = self.neutral_vertices + self.mean_offset
        weights = self.skinning_weights(base)
        refined = base + self.pose_offset(pose, weights)
        expression = self.body.expr_dirs_high @ pose.expr
        weights_refined = self.skinning_weights(refined + expression)

        transforms = self.transforms(pose)
        blended = blend_transforms(weights, transforms)
        blended_refined = blend_transforms(weights_refined, transforms)
        return PosedAvatar(
            vertices=camera.camera_to_world(apply_transforms(blended, self.neutral_vertices + expression)),
            base_mean=camera.camera_to_world(apply_transforms(blended, base + expression)),
            refined_mean=camera.camera_to_world(apply_transforms(blended_refined, refined + expression)),
            base_neutral=base,
            refined_neutral=refined,
            scale=torch.exp(self.scale),
            appearance=self.appearance,
        )


def _pick(table: Tensor, index: Tensor) -> Tensor:
    """Rows of a table (55, C) by index (M,); the backward pass is the same bit by bit every time."""
    if gpu.is_on(table):
        from common.gpu.net import PickRows

        return PickRows.apply(table, index)
    return F.embedding(index, table)  # unlike table[index]


def _is_power_of_two(n: int) -> bool:
    return n & (n - 1) == 0


def _hidden_layers(hidden: Tensor, layers: list[nn.Module]) -> Tensor:
    """The offset net after its first linear layer: group norm, ReLU, linear, three times."""
    for layer in layers:
        if isinstance(layer, nn.GroupNorm) and gpu.is_on(hidden) and _fits_kernel(layer):
            from common.gpu.net import group_norm_relu

            hidden = group_norm_relu(hidden, layer.weight, layer.bias, layer.num_groups, layer.eps)
        else:
            hidden = layer(hidden)  # a ReLU once more changes nothing
    return hidden


def _fits_kernel(layer: nn.GroupNorm) -> bool:
    return _is_power_of_two(layer.num_channels) and _is_power_of_two(layer.num_groups)


def joint_transforms(rotation: Tensor, joints: Tensor, parents: Tensor) -> Tensor:
    """Transforms (55, 4, 4) from the zero pose to the pose `rotation` (55, 3, 3), about `joints` (55, 3)."""
    if gpu.is_on(rotation):
        from common.gpu.kinematics import rigid_transforms

        return rigid_transforms(rotation, joints, parents)[1]
    _, transform = batch_rigid_transform(rotation[None], joints[None], parents, dtype=joints.dtype)
    return transform[0]


def blend_transforms(weights: Tensor, transforms: Tensor) -> Tensor:
    """Linear blend of joint transforms: weights (N, 55), transforms (55, 4, 4) -> (N, 3, 4)."""
    return (weights @ transforms[:, :3].reshape(len(transforms), 12)).reshape(-1, 3, 4)


def apply_transforms(transforms: Tensor, points: Tensor) -> Tensor:
    """Affine transforms (N, 3, 4) applied to points (N, 3)."""
    return (transforms[:, :, :3] * points[:, None]).sum(2) + transforms[:, :, 3]
