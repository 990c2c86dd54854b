"""From a motion as it was read to one that can be rendered: frames, rate, hands, cameras."""

from __future__ import annotations

from dataclasses import replace

from common.camera import Camera
from common.errors import UserError
from common.motion.figure import Figure
from common.motion.framing import (
    FOCAL_PER_SIDE,
    Lens,
    facing_direction,
    follow_cameras,
    front_cameras,
    orbit_cameras,
    smooth_way,
)
from common.motion.hands import relative_to_mean
from common.motion.motion import Motion, map_params
from common.motion.options import MotionOptions
from common.motion.space import about_pelvis, to_cameras, to_world, warn_if_not_upright
from common.motion.timeline import resample, select_frames
from common.pose import SmplxParams, rotation_vectors
from common.rotation import rotvec_to_rotmat

DEFAULT_WIDTH, DEFAULT_HEIGHT = 512, 768  # pixels


def stage(motion: Motion, figure: Figure, options: MotionOptions, fps: float) -> Motion:
    """The frames to play, at `fps` (or options.fps), in the space of the cameras that look at them.

    `figure` is the body that will be shown. UserError where an option does not suit the motion.
    """
    check_camera(motion, options)
    motion = about_pelvis(motion, figure.pelvis)
    motion = resample(select_frames(motion, options), options.fps or fps)
    motion = relative_to_mean(motion, figure.hand_mean)
    if _is_own_camera(motion, options):
        return motion
    warn_if_not_upright(motion)
    world = to_world(motion, figure.pelvis)
    cameras = place_cameras(world, figure, options.camera, _lens(motion, options), motion.fps or fps)
    params = map_params(lambda value: value.float(), to_cameras(world, cameras, figure.pelvis))
    return replace(motion, params=params, up="camera", cameras=tuple(cameras), images=None)


def check_camera(motion: Motion, options: MotionOptions) -> None:
    """UserError for options of cameras that do not suit the motion."""
    if options.camera == "motion" and motion.cameras is None:
        raise UserError(
            f"--camera motion: {motion.name} ({motion.format}) has no cameras; use front, follow or orbit"
        )
    if _is_own_camera(motion, options):
        if options.focal is not None:
            raise UserError("--focal does not apply to the motion's own cameras; choose another --camera")
    elif motion.backgrounds is not None:
        raise UserError(
            f"--use_bkg needs --camera motion: the backgrounds of {motion.name} belong to its cameras"
        )


def place_cameras(world: SmplxParams, figure: Figure, kind: str, lens: Lens, fps: float) -> list[Camera]:
    """A camera a frame for float64 parameters in the world with y down; kind front (or auto), follow or orbit."""
    rotation = rotvec_to_rotmat(rotation_vectors(world))
    points = figure.posed_points(rotation, world.trans)
    facing = facing_direction(rotation[:, 0])
    if kind in ("auto", "front"):
        return front_cameras(points, facing, lens)
    way = smooth_way(world.trans + figure.pelvis, fps)
    place = {"follow": follow_cameras, "orbit": orbit_cameras}[kind]
    return place(points, way, facing, lens)


def _is_own_camera(motion: Motion, options: MotionOptions) -> bool:
    return options.camera == "motion" or (options.camera == "auto" and motion.cameras is not None)


def _lens(motion: Motion, options: MotionOptions) -> Lens:
    own = (motion.height, motion.width) if motion.cameras else (DEFAULT_HEIGHT, DEFAULT_WIDTH)
    height, width = options.height or own[0], options.width or own[1]
    return Lens(height, width, options.focal or FOCAL_PER_SIDE * max(height, width))
