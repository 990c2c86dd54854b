"""What the viewer's timeline plays: poses with the camera whose space they are in."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from common.avatar import Avatar
from common.camera import Camera
from common.pose import SmplxParams, SmplxPose

if TYPE_CHECKING:
    from common.motion import Motion

NEUTRAL_DISTANCE_M = 3.0  # of the neutral pose from the camera
NEUTRAL_FOCAL = 1.4  # times the height
NEUTRAL_SIZE_PX = 512


@dataclass(frozen=True)
class Track:
    """A motion, and the neutral pose at the place where it begins."""

    name: str
    neutral: SmplxPose  # in the space of `camera`
    camera: Camera  # of the first frame; its picture's up and down are the viewer's
    poses: tuple[SmplxPose, ...]  # each in the space of its camera; empty without a motion
    cameras: tuple[Camera, ...]
    fps: float

    def pose(self, frame: int | None) -> tuple[SmplxPose, Camera]:
        """A frame's pose and camera; None: the neutral pose."""
        if frame is None or not self.poses:
            return self.neutral, self.camera
        index = min(max(frame, 0), len(self.poses) - 1)
        return self.poses[index], self.cameras[index]


def track_of(avatar: Avatar, motion: Motion | None, fps: float) -> Track:
    """The timeline of a motion, or of the neutral pose alone."""
    if motion is None:
        size = NEUTRAL_SIZE_PX
        camera = Camera.identity((NEUTRAL_FOCAL * size,) * 2, (size / 2,) * 2, size, size)
        pelvis = torch.tensor([0.0, 0.0, NEUTRAL_DISTANCE_M])
        return Track("neutral", neutral_pose(avatar, pelvis), camera, (), (), fps)
    poses = tuple(SmplxPose.from_params(frame.params) for frame in motion.frames)
    cameras = tuple(frame.camera for frame in motion.frames)
    neutral = neutral_pose(avatar, pelvis_of(avatar, poses[0]))
    return Track(motion.name, neutral, cameras[0], poses, cameras, fps)


def pelvis_of(avatar: Avatar, pose: SmplxPose) -> Tensor:
    """Where the pelvis is (3,), in the pose's camera space, metres."""
    return avatar.zero_pose_joints[0].cpu() + pose.trans


def neutral_pose(avatar: Avatar, pelvis: Tensor) -> SmplxPose:
    """The neutral pose, upright in the picture and facing the camera, with the pelvis at (3,)."""
    params: SmplxParams = avatar.body.neutral_pose_params(jaw_open=False).to("cpu")
    upright = replace(
        params,
        root_pose=torch.tensor([math.pi, 0.0, 0.0]),
        trans=pelvis - avatar.zero_pose_joints[0].cpu(),
    )
    return SmplxPose.from_params(upright)
