"""Where an exported avatar stands: from the project's spaces to the axes that other programs expect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from common.camera import Camera
from common.gaussians import Gaussians

Up = Literal["y", "minus_y", "z"]

# From x left of the person, y up, z forward (the neutral pose; glTF's axes) to the axes with another up.
_FROM_Y_UP = {
    "y": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "minus_y": ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)),  # OpenCV: y down, z away
    "z": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),  # Blender: faces -y
}


@dataclass(frozen=True)
class Placement:
    """A rigid motion x_out = rotation x + translation."""

    rotation: Tensor  # (3, 3)
    translation: Tensor  # (3,) metres

    @staticmethod
    def of_neutral_pose(up: Up) -> Placement:
        """From the space of the neutral pose, which is y-up."""
        return Placement(torch.tensor(_FROM_Y_UP[up]), torch.zeros(3))

    @staticmethod
    def of_motion(first: Camera, up: Up) -> Placement:
        """From a motion's world: origin and axes of its first camera, the top of its picture being up."""
        to_y_up = torch.tensor(_FROM_Y_UP["minus_y"])  # the flip is its own inverse
        axes = (torch.tensor(_FROM_Y_UP[up]) @ to_y_up).to(first.R)
        return Placement(axes @ first.R, axes @ first.t)

    def to(self, *args: Any) -> Placement:
        """The same on another device or dtype."""
        return Placement(self.rotation.to(*args), self.translation.to(*args))

    def after(self, camera: Camera) -> Placement:
        """From the camera's space: out of it to the world, then as this placement."""
        rotation = self.rotation @ camera.R.T
        return Placement(rotation, self.translation - rotation @ camera.t)

    def points(self, points: Tensor) -> Tensor:
        """Points (..., 3) placed."""
        return points @ self.rotation.T + self.translation

    def gaussians(self, gaussians: Gaussians) -> Gaussians:
        """Gaussians placed, with their rotations if they have any."""
        rotation = gaussians.rotation
        if rotation is not None:
            import roma  # late: importing it is slow

            turn = roma.rotmat_to_unitquat(self.rotation)
            rotation = roma.quat_xyzw_to_wxyz(roma.quat_product(turn, roma.quat_wxyz_to_xyzw(rotation)))
        return Gaussians(
            self.points(gaussians.mean), gaussians.scale, gaussians.rgb, rotation, gaussians.opacity
        )
