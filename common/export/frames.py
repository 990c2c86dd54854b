"""Single frames of a motion: finding one by its number, and naming their files."""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError
from common.motion import Motion, MotionFrame


def frame_of(motion: Motion, index: int | None) -> MotionFrame:
    """The motion's frame of this number; UserError if there is none."""
    for frame in motion.frames:
        if frame.index == index:
            return frame
    first, last = motion.indices[0], motion.indices[-1]
    raise UserError(f"--frame {index}: the motion {motion.name} has frames {first} to {last}")


def numbered(path: Path, index: int) -> Path:
    """The file of one frame; numbers have leading zeros, so that names sort as the frames play."""
    return path.with_stem(f"{path.stem}_{index:06d}")
