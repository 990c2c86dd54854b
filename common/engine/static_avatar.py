"""All of an avatar that no pose changes, computed once; and its posing in torch (SPEC 9).

For posing, Gaussians are put into another order, so that those that are handled alike are neighbours:

    [ from the field, still | from the field, moving | own weights, moving | own weights, still ]

"From the field" are those whose skinning weights are looked up where the pose has put them; "moving" are those
that the offset net moves. Drawing has the avatar's own order: it decides who is in front at equal depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.avatar import Avatar, apply_transforms
from common.engine.pose_rows import WEIGHT_COLUMN, PoseRow
from common.gaussians import Gaussians
from common.joints import N_BODY_POSE
from common.skinning_field import SkinningField


@dataclass(frozen=True)
class OffsetNet:
    """The net of the pose-driven offsets, its first layer split into what the pose changes and what it does not."""

    features: Tensor  # (M, H) the first layer's output without the pose
    dominant: Tensor  # (M,) int64 the joint that a vertex hangs on
    pose_weight: Tensor  # (126, H) the first layer's weights of the pose
    reach: Tensor  # (55, 21, 1) which body joints a vertex hanging on a joint sees
    layers: tuple[nn.Module, ...]  # what follows the first layer
    divisor: float

    def by_joint(self, pose_6d: Tensor) -> Tensor:
        """What the pose adds to the first layer: (55, H), one of its rows to each vertex."""
        return (self.reach * pose_6d).flatten(1) @ self.pose_weight

    def offset(self, pose_6d: Tensor) -> Tensor:
        """Offsets (M, 3) in metres."""
        hidden = self.features + self.by_joint(pose_6d)[self.dominant]
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden / self.divisor


@dataclass(frozen=True)
class StaticAvatar:
    """Constants of one avatar in the order above unless said otherwise; N Gaussians, D of the field, M moving."""

    n_field: int  # D
    moving: tuple[int, int]  # first moving Gaussian, one past the last
    base: Tensor  # (N, 3) metres, neutral pose, with mean_offset
    scale: Tensor  # (N, 1) metres
    net: OffsetNet | None  # None: nothing moves
    expression_index: Tensor  # (E,) the Gaussians that an expression moves
    expression_dirs: Tensor  # (E, 3, 50)
    own_weights: Tensor  # (N - D, 55)
    field: SkinningField
    order: Tensor  # (N,) the avatar's Gaussian at each place
    drawn: Gaussians  # in the avatar's order; the means are not posed
    channels: Tensor  # (N, 4) colour and 1, in the avatar's order

    @staticmethod
    @torch.no_grad()
    def of(avatar: Avatar) -> StaticAvatar:
        """The constants of the refined avatar, on its device."""
        base = avatar.neutral_vertices + avatar.mean_offset
        order, n_field, moving = _order(avatar, base)
        dirs = avatar.body.expr_dirs_high[order]
        expression = (dirs != 0).any(2).any(1).nonzero().squeeze(1)
        return StaticAvatar(
            n_field=n_field,
            moving=moving,
            base=base[order].contiguous(),
            scale=torch.exp(avatar.scale[order]).contiguous(),
            net=_offset_net(avatar, base, order[slice(*moving)]),
            expression_index=expression,
            expression_dirs=dirs[expression].contiguous(),
            own_weights=avatar.body.skinning_weights_high[order[n_field:]].contiguous(),
            field=avatar.skinning_field,
            order=order,
            drawn=Gaussians(base, torch.exp(avatar.scale), torch.sigmoid(avatar.rgb)),
            channels=F.pad(torch.sigmoid(avatar.rgb), (0, 1), value=1.0).contiguous(),
        )

    def neutral_mean(self, pose: PoseRow) -> Tensor:
        """Means (N, 3) in the neutral pose with offsets and expression."""
        mean = self.base.clone()
        if self.net is not None:
            mean[slice(*self.moving)] += self.net.offset(pose.pose_6d)
        return mean.index_add_(0, self.expression_index, self.expression_dirs @ pose.expr)

    def mean(self, pose: PoseRow) -> Tensor:
        """Means (N, 3) of the posed Gaussians in world space, in the avatar's order."""
        neutral = self.neutral_mean(pose)
        sampled = self.field.sample(neutral[: self.n_field], self.scale[: self.n_field])
        weights = torch.cat([sampled, self.own_weights])
        blended = weights @ pose.blend[:, :WEIGHT_COLUMN]
        posed = pose.camera.camera_to_world(apply_transforms(blended.view(-1, 3, 4), neutral))
        return torch.empty_like(posed).index_copy_(0, self.order, posed)


def _order(avatar: Avatar, base: Tensor) -> tuple[Tensor, int, tuple[int, int]]:
    """The new order; Gaussians of the field that lie in one cell of it stay together."""
    n = len(base)
    is_field, is_moving = (
        torch.zeros(n, dtype=torch.bool, device=base.device).index_fill(0, index, True)
        for index in (avatar.diffused_index, avatar.moving_index)
    )
    field = avatar.skinning_field
    size = torch.tensor(field.weights.shape[:3], device=base.device)
    cell = ((base - field.lower) / (field.upper - field.lower) * (size - 1)).floor().long()
    x, y, z = cell.clamp(torch.zeros_like(size), size - 1).unbind(1)
    place = (x * size[1] + y) * size[2] + z
    group = torch.where(is_field, torch.where(is_moving, 1, 0), torch.where(is_moving, 2, 3))
    order = torch.argsort(group * int(size.prod()) + torch.where(is_field, place, 0), stable=True)
    still, moving_field, moving_own = (int((group == k).sum()) for k in range(3))
    return order, still + moving_field, (still, still + moving_field + moving_own)


def _offset_net(avatar: Avatar, base: Tensor, moving: Tensor) -> OffsetNet | None:
    if avatar.config.without_pose_offsets or len(moving) == 0:
        return None
    first, *rest = avatar.mean_offset_offset_net
    assert isinstance(first, nn.Linear)
    by_avatar = torch.empty(len(base), dtype=torch.long, device=base.device)
    by_avatar[avatar.moving_index] = torch.arange(len(moving), device=base.device)
    rows = by_avatar[moving]
    features = avatar.triplane_features()
    n_features = features.shape[1]
    dominant = avatar.skinning_weights(base)[moving].argmax(1)
    hidden = F.linear(features[rows], first.weight[:, :n_features], first.bias)
    reach = avatar.body.kinematic_reach[:, 1 : 1 + N_BODY_POSE, None]
    return OffsetNet(
        features=hidden.contiguous(),
        dominant=dominant,
        pose_weight=first.weight[:, n_features:].T,
        reach=reach.contiguous(),
        layers=tuple(rest),
        divisor=avatar.config.offset_divisor,
    )
