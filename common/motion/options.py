"""What a user may say about a motion: how to read it, which part to play, how to look at it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.errors import UserError
from common.io.image import MAX_PIXELS

Up = Literal["y", "z", "camera"]
Hands = Literal["flat", "relative"]
MAX_FPS = 1000.0


@dataclass(frozen=True)
class MotionOptions:
    """Options of every command that plays a motion; the defaults follow from the motion's format."""

    camera: Literal["auto", "motion", "front", "follow", "orbit"] = "auto"
    """Where to look from. motion: the motion's own cameras (auto takes them where there are any). front: a fixed
    camera before the person that sees the whole motion. follow: the same, moving along with the person. orbit:
    once around the person."""
    width: int | None = None
    """Render width in pixels (default: of the motion's images; else twice the principal point, or 512)."""
    height: int | None = None
    """Render height in pixels (default: of the motion's images; else twice the principal point, or 768)."""
    focal: float | None = None
    """Focal length in pixels of front, follow and orbit (default: 1.5 times the longer side)."""
    fps: int | None = None
    """Frames per second of the output; the motion is resampled to it (default: --animation.fps)."""
    motion_fps: float | None = None
    """Frames per second of the motion, where its file does not say or is wrong."""
    up: Literal["auto", "y", "z", "camera"] = "auto"
    """Axis that points up in the motion's world; camera: x right, y down, z forward (default: by format)."""
    hands: Literal["auto", "flat", "relative"] = "auto"
    """Whether zero finger rotations mean a flat hand or the body's mean hand (default: by format)."""
    start: int = 0
    """First frame number of the motion to play."""
    end: int | None = None
    """Frame number of the motion to stop before."""
    stride: int = 1
    """Play every so many frames of the motion, at the same speed."""
    person: int | None = None
    """Which person of a file or folder with several (default: the first)."""


def check_render_size(path: Path, height: int, width: int) -> None:
    """UserError for a motion that asks for larger images than this program reads and writes."""
    if height * width > MAX_PIXELS:
        raise UserError(
            f"{path} asks for {width} x {height} pixels, at most {MAX_PIXELS} work; give --width, --height"
        )


def check_options(options: MotionOptions) -> None:
    """UserError for options that no motion can meet."""
    if any(side is not None and side < 1 for side in (options.height, options.width)):
        raise UserError("--height and --width must be positive pixels")
    if options.focal is not None and not 1 <= options.focal < 1e6:
        raise UserError("--focal must be a number of pixels from 1 up")
    for name, rate in (("--fps", options.fps), ("--motion_fps", options.motion_fps)):
        if rate is not None and not 0 < rate <= MAX_FPS:
            raise UserError(f"{name} must be above 0 and at most {MAX_FPS:g} frames per second")
    if options.stride < 1:
        raise UserError("--stride must be 1 or more")
    if options.start < 0 or (options.end is not None and options.end <= options.start):
        raise UserError("--start must be 0 or more, and --end above it")
