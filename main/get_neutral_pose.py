"""Render the avatar in the neutral pose from all around (SPEC 15)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from tqdm import tqdm

from common.checkpoint import read_snapshot
from common.io.files import inside
from common.io.image import to_uint8, write_image
from common.io.video import VideoWriter
from common.pose import SmplxPose
from common.renders import over, render_view
from common.turntable import turntable_cameras, turntable_pose, turntable_target
from main import setup
from main.config import ROOT


@dataclass(frozen=True)
class NeutralPoseArgs(setup.SubjectArgs):
    """Options of the turntable."""

    test_epoch: int | None = None
    """Epoch of the snapshot (default: the newest)."""
    refined: bool = False
    """Show the refined avatar instead of the base avatar."""
    output: Path = ROOT / "main" / "neutral_pose"
    """Folder; images and the video go into <output>/<subject>."""


@torch.no_grad()
def main(args: NeutralPoseArgs) -> None:
    """Write <i>.png of every view and a video of all."""
    device, settings = setup.choose_device(args.device), args.config.animation
    source = setup.snapshot_file(args, args.test_epoch, fit_pose_to_test=False)
    model = setup.load_snapshot_person(args, read_snapshot(source), source).to(device)
    avatar, body = model.persona, model.persona.body
    params = turntable_pose(body, settings.neutral_trans_m)
    cameras = list(
        turntable_cameras(
            turntable_target(body, params), settings.n_views, settings.neutral_focal, settings.neutral_size
        )
    )
    posed = avatar(SmplxPose.from_params(params), setup.world_camera(device))
    folder = inside(args.output, args.output / args.subject_id)
    with VideoWriter(folder / "neutral_pose.mp4", settings.fps) as video:
        for i, camera in enumerate(tqdm(cameras, desc="views")):
            view = render_view(posed.refined if args.refined else posed.base, body, camera)
            image = over(view["image"], view["mask"], 1.0)
            write_image(folder / f"{i}.png", image)
            video.write(to_uint8(image))
    setup.logger.info("images and neutral_pose.mp4 are in %s", folder)


if __name__ == "__main__":
    setup.run(NeutralPoseArgs, main, __doc__)
