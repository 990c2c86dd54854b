"""An avatar as a .glb model, with what is lost on the way measured."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from common.avatar import Avatar
from common.camera import Camera
from common.export.formats import FormatOptions
from common.export.frames import frame_of
from common.export.placement import Placement
from common.export.skin import neutral_skeleton, posed_skeleton, skin_of, skinning_error
from common.export.skinned_glb import Clip, write_glb
from common.export.uv_texture import UvMesh, bake_texture
from common.motion import Motion
from common.pose import SmplxParams

logger = logging.getLogger(__name__)

N_MEASURED = 20  # frames, evenly spaced, on which the skin is compared with the avatar


@dataclass(frozen=True)
class ModelMotion:
    """What moves a model: frames on the avatar's device, in their cameras' spaces."""

    name: str
    frames: Sequence[tuple[SmplxParams, Camera]]
    placement: Placement
    fps: float | None  # None: the first frame alone, as the pose that the model stands in

    @staticmethod
    def of(motion: Motion, index: int | None, fps: float, device: torch.device) -> ModelMotion:
        """A whole motion (at `fps` if it has no rate of its own), or only its frame `index`."""
        frames = motion.frames if index is None else [frame_of(motion, index)]
        return ModelMotion(
            name=motion.name,
            frames=[(frame.params.to(device), frame.camera.to(device)) for frame in frames],
            placement=Placement.of_motion(motion.frames[0].camera, "y").to(device),
            fps=(motion.fps or fps) if index is None else None,
        )


@torch.no_grad()
def write_model(
    path: Path, name: str, avatar: Avatar, options: FormatOptions, motion: ModelMotion | None = None
) -> None:
    """Write the base avatar: in the neutral pose, in one frame's pose, or playing a motion."""
    n_expressions = options.n_expressions
    skin = skin_of(avatar, options.n_weights, n_expressions)
    uv_mesh = UvMesh.of(avatar.body)
    texture = bake_texture(uv_mesh, avatar.appearance.rgb, options.texture_size)
    pose, clip = neutral_skeleton(avatar, n_expressions), None
    if motion is not None:
        poses = [
            posed_skeleton(avatar, params, camera, motion.placement, n_expressions)
            for params, camera in motion.frames
        ]
        if motion.fps is None:
            pose = poses[0]
        else:
            clip = Clip(motion.name, poses, motion.fps)
        measured = motion.frames[:: -(-len(motion.frames) // N_MEASURED)]
        report_error(skinning_error(avatar, skin, measured), options)
    write_glb(path, name, skin, avatar.body.faces_high, uv_mesh, texture, pose, clip)


def report_error(error: Tensor, options: FormatOptions) -> None:
    """Log how far the model's surface is from the avatar's base surface; error (T, N) in metres."""
    logger.info(
        "with %d joints a vertex and %d expressions the model's surface is %.2f mm from the base avatar's "
        "on average, %.2f mm at the 99th percentile, %.1f mm at most",
        options.n_weights,
        options.n_expressions,
        1e3 * float(error.mean()),
        1e3 * _percentile(error, 0.99),
        1e3 * float(error.max()),
    )


def _percentile(values: Tensor, fraction: float) -> float:
    ordered = values.reshape(-1).sort().values
    return float(ordered[int(fraction * (len(ordered) - 1))])
