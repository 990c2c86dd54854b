"""Cameras around the neutral pose (SPEC 15)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from common.body_model.body import BodyModel
from common.camera import Camera
from common.pose import SmplxParams, SmplxPose

ELEVATION = -math.pi / 12  # radians


def turntable_pose(body: BodyModel, trans: tuple[float, float, float]) -> SmplxParams:
    """The neutral pose upright in camera space: root turned by pi about x, at `trans` (metres)."""
    like = body.v_template
    root = like.new_tensor([math.pi, 0.0, 0.0])
    return replace(body.neutral_pose_params(jaw_open=False), root_pose=root, trans=like.new_tensor(trans))


def turntable_target(body: BodyModel, params: SmplxParams) -> Tensor:
    """What the cameras look at (3,): the mean of the template, rotated and translated."""
    rotation = SmplxPose.from_params(params).rotation[0]
    return rotation @ body.v_template.mean(0) + params.trans


def turntable_cameras(target: Tensor, n_views: int, focal: float, size: int) -> Iterator[Camera]:
    """Cameras on a circle around `target`, as far from it as the origin is, slightly above."""
    distance = target.norm()
    up = target.new_tensor([0.0, 1.0, 0.0])
    for i in range(n_views):
        azimuth = math.pi + 2 * math.pi * i / n_views
        direction = target.new_tensor(
            [
                math.cos(ELEVATION) * math.sin(azimuth),
                math.sin(ELEVATION),
                math.cos(ELEVATION) * math.cos(azimuth),
            ]
        )
        centre = target + distance * direction
        z = (target - centre) / distance
        x = torch.nn.functional.normalize(torch.linalg.cross(up, z), dim=0)
        R = torch.stack([x, torch.linalg.cross(z, x), z])
        yield Camera(
            R, -R @ centre, target.new_full((2,), focal), target.new_full((2,), size / 2), size, size
        )
