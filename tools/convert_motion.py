"""Write a motion of any known format as a motion folder: smplx/params, cam_params and copies of its images."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.body_model.body import BodyModel
from common.body_model.files import load_body_data
from common.checkpoint import read_snapshot
from common.command_line import parse
from common.errors import UserError, run_command
from common.inference import identity_of
from common.motion import Figure, HandComponents, MotionOptions, load_motion, stage
from common.motion.folder import write_motion_folder
from main.config import DEMO_BODY, AnimationConfig, BodyConfig, Gender


@dataclass(frozen=True, kw_only=True)
class Args(MotionOptions):
    """Options of the conversion."""

    motion_path: Path
    """The motion: a folder with smplx/params and cam_params, AMASS, SMPL-X parameters."""
    output: Path
    """The motion folder to write; it must not exist yet."""
    use_bkg: bool = False
    """Copy the motion's images_bkg, too."""
    human_model_path: Path = DEMO_BODY
    """Folder of the body model files: where root and hands turn about depends on the body."""
    gender: Gender = BodyConfig.gender
    """Gender of the body."""
    snapshot: Path | None = None
    """Snapshot of an avatar, to use its identity instead of the body's template."""


def load_figure(args: Args) -> Figure:
    """The body that the motion is written for."""
    body = BodyModel(load_body_data(args.human_model_path, args.gender), 0)
    if args.snapshot is None:
        return Figure.of_body(body)
    snapshot = read_snapshot(args.snapshot)
    identity = identity_of(snapshot.part("persona."), args.snapshot)
    if len(identity.face_offset) != body.n_vertices:
        raise UserError(
            f"{args.snapshot} is of a body with {len(identity.face_offset)} vertices, {args.human_model_path} "
            f"has {body.n_vertices}; give the avatar's --human_model_path"
        )
    return Figure.of_body(body, identity)


def main() -> None:
    """Convert one motion."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    args = parse(Args, __doc__)
    if args.output.exists():
        raise UserError(f"{args.output} exists; choose another --output")
    components = HandComponents(args.human_model_path, args.gender)
    motion = load_motion(args.motion_path, args, args.use_bkg, components)
    motion = stage(motion, load_figure(args), args, AnimationConfig.fps)
    unfinished = args.output.with_name(f".{args.output.name}.{os.getpid()}.part")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a killed run with the same number
    try:
        write_motion_folder(unfinished, motion)
        unfinished.rename(args.output)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    print(f"{args.output}: {len(motion)} frames for {motion.fps:g} frames per second")


if __name__ == "__main__":
    run_command(main)
