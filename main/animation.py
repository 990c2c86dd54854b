"""Drive an avatar by a motion and write the video (SPEC 15)."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import early_start

early_start.begin()

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from common.checkpoint import read_snapshot
from common.engine import Engine, Shot
from common.engine.speed import repeated, speed_of
from common.errors import UserError
from common.io.files import inside
from common.io.image import read_rgb, to_uint8
from common.io.video_queue import VideoQueue
from common.motion import Figure, HandComponents, MotionFrame, MotionOptions, load_motion, stage
from common.photo_panel import photo_panel
from main import setup
from main.config import ROOT

early_start.imported()

BENCHMARK_FRAMES = {"cpu": 24, "cuda": 1000}  # at least


@dataclass(frozen=True)
class AnimationArgs(MotionOptions, setup.SubjectArgs):
    """Options of animation."""

    motion_path: Path | None = None
    """Motion of any known format: a folder with smplx/params and cam_params, AMASS, SMPL-X parameters (default
    for the demo: its own)."""
    test_epoch: int | None = None
    """Epoch of the snapshot (default: the newest)."""
    use_bkg: bool = False
    """Put the avatar over the motion's background images instead of white."""
    benchmark: bool = False
    """Print how many frames a second are drawn, without and with encoding."""
    output: Path = ROOT / "output" / "animation"
    """Folder; the video becomes <output>/<subject>/<motion>.mp4."""


def main(args: AnimationArgs) -> None:
    """Write the video: the photo, where the subject's data is there, and beside it the refined avatar."""
    device = setup.choose_device(args.device)
    fps = args.fps or args.config.animation.fps
    source = setup.snapshot_file(args, args.test_epoch, fit_pose_to_test=False)
    components = HandComponents(setup.body_path(args), args.config.body.gender)
    motion = load_motion(motion_path(args), args, args.use_bkg, components)
    model = setup.load_snapshot_person(args, read_snapshot(source), source).to(device)
    motion = stage(motion, Figure.of_avatar(model.persona), args, fps)
    photo = find_photo(args.paths.subjects / args.subject_id)
    panel = None if photo is None else to_uint8(photo_panel(read_rgb(photo), motion.height))
    engine = Engine(model.persona, motion.height, motion.width, panel)
    target = inside(args.output, args.output / args.subject_id / f"{motion.name}.mp4")
    if args.benchmark:
        frames = repeated(motion.frames, BENCHMARK_FRAMES[device.type])
        speed = speed_of(engine.pictures(map(shot, frames)), lambda _: None)
        print(f"without encoding: {speed.per_second:.1f} frames/s ({speed.milliseconds:.3f} ms a frame)")
    start = time.perf_counter()
    with VideoQueue(target, fps, with_frame_number) as video:
        pictures = tqdm(engine.pictures(map(shot, motion.frames)), desc="frames", total=len(motion.frames))
        for frame, picture in zip(motion.frames, pictures, strict=True):
            video.put(picture, frame.index)
    if args.benchmark:
        seconds = time.perf_counter() - start
        print(
            f"with encoding: {len(motion.frames) / seconds:.1f} frames/s, the file's start and end included"
        )
    setup.logger.info("the video is %s", target)


def motion_path(args: AnimationArgs) -> Path:
    """The motion that drives the avatar."""
    if args.motion_path is not None:
        return args.motion_path
    if not args.is_demo:
        raise UserError("--motion_path is missing: give a motion, for example data/demo_motion/walk_wave.npz")
    return setup.subject_path(args) / "motion"


def find_photo(subject: Path) -> Path | None:
    """The subject's photo; without it the video shows the avatar alone."""
    photos = sorted(
        (subject / "captured" / "images").glob("*.png"), key=lambda path: (len(path.stem), path.stem)
    )
    if not photos:
        setup.logger.info("no photo in %s: the video shows the avatar alone", subject)
        return None
    return photos[0]


def shot(frame: MotionFrame) -> Shot:
    """What the engine needs of a motion's frame."""
    path = frame.background
    return Shot(frame.params, frame.camera, None if path is None else lambda: to_uint8(read_rgb(path)))


def with_frame_number(picture: np.ndarray, number: int) -> np.ndarray:
    """The picture (H, W, 3) with the frame's number in its upper left corner."""
    image = Image.fromarray(picture)
    size = max(10, picture.shape[0] // 24)
    ImageDraw.Draw(image).text((size // 2, size // 3), str(number), "red", number_font(size))
    return np.asarray(image)


@lru_cache(maxsize=4)
def number_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of the frame number."""
    return ImageFont.load_default(size)


if __name__ == "__main__":
    setup.run(AnimationArgs, main, __doc__)
