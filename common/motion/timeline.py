"""Which frames of a motion are played, and at which rate."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from common.camera import Camera
from common.errors import UserError
from common.motion.motion import Motion, from_rotation_vectors
from common.motion.options import MotionOptions
from common.pose import rotation_vectors

logger = logging.getLogger(__name__)
_SAME_RATE = 1e-3  # relative; such rates are played frame by frame


def select_frames(motion: Motion, options: MotionOptions) -> Motion:
    """The frames of --start, --end and --stride; UserError if there are none."""
    end = options.end if options.end is not None else motion.indices[-1] + 1
    kept = [i for i, index in enumerate(motion.indices) if options.start <= index < end][:: options.stride]
    if not kept:
        raise UserError(
            f"--start {options.start} --end {end} leaves no frame; "
            f"{motion.name} has frames {motion.indices[0]} to {motion.indices[-1]}"
        )
    fps = options.motion_fps or motion.fps
    taken = motion if len(kept) == len(motion) else motion.take(kept)
    return replace(taken, fps=None if fps is None else fps / options.stride)


def resample(motion: Motion, fps: float) -> Motion:
    """The motion at another rate: slerp of rotations, linear otherwise; images of the nearest frame.

    A motion of unknown rate is played frame by frame. The result's frames are numbered from 0 if it was resampled.
    """
    if motion.fps is None or abs(motion.fps / fps - 1) < _SAME_RATE:
        if motion.fps is None:
            logger.info("%s does not say its frame rate: it is played frame by frame", motion.name)
        return replace(motion, fps=fps)
    last = len(motion) - 1
    n_out = int(np.floor(last / motion.fps * fps + 1e-6)) + 1
    times = torch.arange(n_out, dtype=torch.float64) / fps * motion.fps  # in frames of the motion
    before = times.floor().long().clamp(max=last)
    after = (before + 1).clamp(max=last)
    share = (times - before).clamp(0, 1)
    nearest = torch.where(share < 0.5, before, after).tolist()
    params, weight = motion.params, share[:, None]
    rotvec = rotation_vectors(params).double()
    moved = from_rotation_vectors(
        slerp(rotvec[before], rotvec[after], share[:, None, None]),
        torch.lerp(params.expr.double()[before], params.expr.double()[after], weight),
        torch.lerp(params.trans.double()[before], params.trans.double()[after], weight),
    )
    cameras = None
    if motion.cameras is not None:
        spans = zip(before.tolist(), after.tolist(), share.tolist(), strict=True)
        cameras = tuple(_between(motion.cameras[a], motion.cameras[b], s) for a, b, s in spans)
    return replace(motion.take(nearest, range(n_out)), params=moved, cameras=cameras, fps=fps)


def slerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Axis-angle (..., 3) on the shortest way from `start` to `end` (both (..., 3)); share (..., 1) in [0, 1]."""
    import roma  # late: importing it is slow

    way = roma.rotvec_composition([-start, end])
    return roma.rotvec_composition([start, way * share])


def _between(start: Camera, end: Camera, share: float) -> Camera:
    import roma

    way = torch.tensor([share], dtype=torch.float64)
    rotvec = slerp(roma.rotmat_to_rotvec(start.R.double()), roma.rotmat_to_rotvec(end.R.double()), way)
    return replace(
        start,
        R=roma.rotvec_to_rotmat(rotvec).float(),
        t=torch.lerp(start.t, end.t, share),
        focal=torch.lerp(start.focal, end.focal, share),
        princpt=torch.lerp(start.princpt, end.princpt, share),
    )
