"""Drive an avatar by a motion and write the video (SPEC 15)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from tqdm import tqdm

from common.avatar import Avatar
from common.checkpoint import read_snapshot
from common.errors import UserError
from common.io.files import inside
from common.io.image import read_rgb, to_uint8
from common.io.video import VideoWriter
from common.motion import Figure, HandComponents, MotionFrame, MotionOptions, load_motion, stage
from common.photo_panel import photo_panel
from common.pose import SmplxPose
from common.renders import over, render_view
from main import setup
from main.config import ROOT


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
    output: Path = ROOT / "output" / "animation"
    """Folder; the video becomes <output>/<subject>/<motion>.mp4."""


@torch.no_grad()
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
    panel = None if photo is None else photo_panel(read_rgb(photo), motion.height)
    target = inside(args.output, args.output / args.subject_id / f"{motion.name}.mp4")
    with VideoWriter(target, fps) as video:
        for frame in tqdm(motion.frames, desc="frames"):
            render = render_frame(model.persona, frame, device)
            picture = render if panel is None else torch.cat([panel, render], dim=2)
            video.write(with_frame_number(to_uint8(picture), frame.index))
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


def render_frame(avatar: Avatar, frame: MotionFrame, device: torch.device) -> Tensor:
    """The refined avatar (3, H, W) over white or over the frame's background, on the CPU."""
    camera = frame.camera.to(device)
    posed = avatar(SmplxPose.from_params(frame.params.to(device)), camera)
    view = render_view(posed.refined, avatar.body, camera)
    background = 1.0 if frame.background is None else read_rgb(frame.background).to(device)
    return over(view["image"], view["mask"], background).cpu()


def with_frame_number(picture: np.ndarray, number: int) -> np.ndarray:
    """The picture (H, W, 3) with the frame's number in its upper left corner."""
    image = Image.fromarray(picture)
    size = max(10, picture.shape[0] // 24)
    ImageDraw.Draw(image).text((size // 2, size // 3), str(number), "red", ImageFont.load_default(size))
    return np.asarray(image)


if __name__ == "__main__":
    setup.run(AnimationArgs, main, __doc__)
