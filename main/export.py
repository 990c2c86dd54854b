"""Write an avatar for other programs: Gaussian splats, a surface mesh, or a skinned and animated model."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import tyro
from tqdm import tqdm

from common.avatar import Avatar
from common.camera import Camera
from common.checkpoint import read_snapshot
from common.errors import UserError
from common.export.formats import (
    SUFFIXES,
    Format,
    FormatOptions,
    check_options,
    check_suffix,
    default_up,
    write_gaussians,
)
from common.export.frames import frame_of, numbered
from common.export.model import ModelMotion, write_model
from common.export.placement import Placement
from common.motion import Figure, HandComponents, Motion, MotionOptions, load_motion, stage
from common.pose import SmplxParams, SmplxPose
from main import setup


@dataclass(frozen=True, kw_only=True)
class ExportArgs(setup.SubjectArgs):
    """Options of the export."""

    format: Format
    """splat_ply: standard 3D Gaussian .ply. splat: compressed .splat. glb: textured mesh with skeleton and
    animation (always the base avatar). mesh_ply, obj: surface mesh with vertex colours."""
    output: Path | None = None
    """File to write (default: output/export/<subject>/<neutral or motion>); with --all_frames, every frame's
    number is added to its name."""
    test_epoch: int | None = None
    """Epoch of the snapshot (default: the newest)."""
    motion_path: Path | None = None
    """Motion that gives the pose, in any format of main/animation.py (default: the neutral pose)."""
    frame: int | None = None
    """Number of the motion's frame to export."""
    all_frames: bool = False
    """Export every frame of the motion as a numbered file (glb: one animation, also without this option)."""
    base: bool = False
    """Export the base avatar instead of the refined one."""
    output_up: Literal["auto", "y", "minus_y", "z"] = "auto"
    """Axis that points up in the file (auto: minus_y for splats, as viewers expect; y for the rest)."""
    options: Annotated[FormatOptions, tyro.conf.arg(name="")] = field(default_factory=FormatOptions)
    motion: Annotated[MotionOptions, tyro.conf.arg(name="")] = field(default_factory=MotionOptions)


@torch.no_grad()
def main(args: ExportArgs) -> None:
    """Write the file or files."""
    up = default_up(args.format) if args.output_up == "auto" else args.output_up
    check_args(args)
    check_options(args.format, args.options, up)
    output = args.output or default_output(args)
    check_suffix(args.format, output)
    device = setup.choose_device(args.device)
    source = setup.snapshot_file(args, args.test_epoch, fit_pose_to_test=False)
    model = setup.load_snapshot_person(args, read_snapshot(source), source).to(device)
    avatar = model.persona
    motion = None if args.motion_path is None else load_staged(args, avatar, args.motion_path)
    if args.format == "glb":
        moves = None
        if motion is not None:
            moves = ModelMotion.of(motion, args.frame, args.config.animation.fps, device)
        write_model(output, args.subject_id, avatar, args.options, moves)
        setup.logger.info("the model is %s", output)
    elif motion is None:
        params = avatar.body.neutral_pose_params(jaw_open=False)
        write_pose(args, output, avatar, params, setup.world_camera(device), Placement.of_neutral_pose(up))
        setup.logger.info("the neutral pose is %s", output)
    else:
        placement = Placement.of_motion(motion.frames[0].camera, up).to(device)
        chosen = motion.frames if args.all_frames else [frame_of(motion, args.frame)]
        for frame in tqdm(chosen, desc="frames"):
            path = numbered(output, frame.index) if args.all_frames else output
            write_pose(args, path, avatar, frame.params.to(device), frame.camera.to(device), placement)
        if args.all_frames:
            setup.logger.info("%d frames of the motion are in %s", len(chosen), output.parent)
        else:
            setup.logger.info("frame %d of the motion is %s", chosen[0].index, output)


def check_args(args: ExportArgs) -> None:
    """UserError for options that do not go together."""
    if args.frame is not None and args.all_frames:
        raise UserError("--frame and --all_frames exclude each other; give one of them")
    if args.motion_path is None and (args.frame is not None or args.all_frames):
        raise UserError("--frame and --all_frames need a motion: give --motion_path")
    if args.motion_path is not None and args.format != "glb" and args.frame is None and not args.all_frames:
        raise UserError(f"--format {args.format} holds one pose a file: give --frame I or --all_frames")


def default_output(args: ExportArgs) -> Path:
    """output/export/<subject>/<what>.<suffix>."""
    name = "neutral" if args.motion_path is None else args.motion_path.resolve().stem
    if args.frame is not None:
        name += f"_{args.frame}"
    return args.paths.output / "export" / args.subject_id / f"{name}{SUFFIXES[args.format]}"


def load_staged(args: ExportArgs, avatar: Avatar, path: Path) -> Motion:
    """The motion at the output's rate, with cameras."""
    components = HandComponents(setup.body_path(args), args.config.body.gender)
    motion = load_motion(path, args.motion, components=components)
    return stage(motion, Figure.of_avatar(avatar), args.motion, args.config.animation.fps)


def write_pose(
    args: ExportArgs, path: Path, avatar: Avatar, params: SmplxParams, camera: Camera, placement: Placement
) -> None:
    """Write the avatar in one pose."""
    posed = avatar(SmplxPose.from_params(params), camera)
    gaussians = placement.to(camera.R.device).gaussians(posed.base if args.base else posed.refined)
    write_gaussians(path, args.format, gaussians, avatar.body.faces_high, args.options)


if __name__ == "__main__":
    setup.run(ExportArgs, main, __doc__)
