"""What the viewer's controls say, as a value; anything that a browser sends is brought into range here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from common.joints import JOINTS, N_EXPR, joint_index
from common.pose import SmplxPose

Look = Literal["colour", "depth", "normal", "parts"]
LOOKS: tuple[Look, ...] = ("colour", "depth", "normal", "parts")
Angles = tuple[float, float, float]
MAX_ANGLE_DEG = 180.0
MAX_EXPRESSION = 5.0


@dataclass(frozen=True)
class PoseEdit:
    """What the sliders add to a pose."""

    # Joint -> turns about its x, y, z axes, degrees; coefficient -> added value.
    angles: Mapping[str, Angles] = field(default_factory=dict)
    expression: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ViewerState:
    """All that decides what is shown, but the camera."""

    frame: int | None = None  # of the motion; None: the neutral pose
    edit: PoseEdit = field(default_factory=PoseEdit)
    is_refined: bool = True  # with the pose-driven offsets
    look: Look = "colour"
    stays_in_place: bool = False  # the motion's way over the ground is taken out
    background: tuple[int, int, int] = (255, 255, 255)


def bounded(value: float, low: float, high: float) -> float:
    """`value` within [low, high]; what is not a finite number becomes the bound nearest to 0."""
    nearest_to_zero = min(max(0.0, low), high)
    return min(max(float(value), low), high) if math.isfinite(value) else nearest_to_zero


def edited(pose: SmplxPose, edit: PoseEdit) -> SmplxPose:
    """The pose with the edit's turns about each joint's own axes (x, then y, then z) and added expression."""
    import roma  # late: importing it is slow

    rotation, expr = pose.rotation.clone(), pose.expr.clone()
    for name, angles in edit.angles.items():
        degrees = rotation.new_tensor([bounded(a, -MAX_ANGLE_DEG, MAX_ANGLE_DEG) for a in angles])
        turn = roma.euler_to_rotmat("XYZ", degrees, degrees=True)
        rotation[joint_index(name)] = rotation[joint_index(name)] @ turn
    for index, value in edit.expression.items():
        expr[index] += bounded(value, -MAX_EXPRESSION, MAX_EXPRESSION)
    return SmplxPose(rotation, expr, pose.trans)


def checked_edit(angles: Mapping[str, Angles], expression: Mapping[int, float]) -> PoseEdit:
    """An edit of the joints and coefficients that there are and that are not at rest."""
    return PoseEdit(
        angles={name: a for name, a in angles.items() if name in JOINTS and any(a)},
        expression={i: value for i, value in expression.items() if 0 <= i < N_EXPR and value},
    )


def same_but_frame(a: ViewerState, b: ViewerState) -> bool:
    """Whether two states put the Gaussians of the same frame to the same places."""
    return (a.edit, a.is_refined, a.stays_in_place) == (b.edit, b.is_refined, b.stays_in_place)


def up_of(rotation: torch.Tensor) -> torch.Tensor:
    """World direction (3,) that is up in the picture of a camera with R = `rotation` (3, 3)."""
    return -rotation[1]
