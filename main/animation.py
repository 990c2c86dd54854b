"""Drive an avatar by a motion and write the video (SPEC 15)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import early_start

early_start.begin()

from tqdm import tqdm

from common.checkpoint import read_snapshot
from common.engine import Engine, Shot
from common.engine.film import film, film_speed
from common.engine.speed import repeated, speed_of
from common.errors import UserError
from common.io.files import inside
from common.io.image import read_pixels, read_rgb, to_uint8
from common.motion import Figure, HandComponents, MotionFrame, MotionOptions, load_motion, stage
from common.photo_panel import photo_panel
from main import setup
from main.config import ROOT

early_start.imported()

BENCHMARK_FRAMES = {"cpu": 24, "cuda": 1000}


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
    engine = Engine(model.persona, motion.height, motion.width, panel, is_video=True)
    target = inside(args.output, args.output / args.subject_id / f"{motion.name}.mp4")
    if args.benchmark:
        print_speed(engine, motion.frames, fps)
    progress = partial(tqdm, desc="frames", total=len(motion.frames))
    film(engine, map(shot, motion.frames), target, fps, progress)
    setup.logger.info("the video is %s", target)


def print_speed(engine: Engine, frames: Sequence[MotionFrame], fps: int) -> None:
    """Frames a second of the motion over and over, drawn alone and written into a video that is thrown away."""
    n_frames = BENCHMARK_FRAMES[engine.device.type]
    shots = [shot(frame) for frame in repeated(frames, n_frames, n_frames)]
    drawn, filmed = speed_of(engine.pictures(shots), lambda _: None), film_speed(engine, shots, fps)
    for what, speed in (("without", drawn), ("with", filmed)):
        print(f"{what} encoding: {speed.per_second:.1f} frames/s ({speed.milliseconds:.3f} ms a frame)")


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
    background = None if path is None else partial(read_pixels, path)
    return Shot(frame.params, frame.camera, background, frame.index)


if __name__ == "__main__":
    setup.run(AnimationArgs, main, __doc__)
