"""Make the UV textures of a split from its images, part colours and fitted SMPL-X parameters (docs/data.md)."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro
from tqdm import tqdm

from common.body_model.body import BodyModel
from common.body_model.files import load_body_data
from common.command_line import parse
from common.errors import UserError, run_command
from common.subject_textures import chosen_frames, texture_files, unwrap_split, view_problems, write_textures
from data.frame import CAPTURED, FrameFiles
from main import setup
from main.config import Config, Paths

SIZES = (16, 8192)  # pixels


@dataclass(frozen=True)
class UnwrapArgs:
    """Options of unwrapping."""

    subject_id: str
    """Name of a folder in data/subjects."""
    split: Literal["captured", "generated_0"]
    """The split whose images are unwrapped, and whose smplx_optimized folder gets the textures."""
    size: int = 1024
    """Side of the textures in pixels; the same for both splits."""
    max_frames: int = 24
    """Frames to use, evenly spaced over the split."""
    albedo: bool = False
    """Take the photo's albedo image instead of the photo (captured only)."""
    overwrite: bool = False
    """Replace textures that are there."""
    human_model_path: Path | None = None
    """Folder of the body model files (default: common/human_model_files; the demo body for the demo)."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    paths: Paths = field(default_factory=Paths)


def main() -> None:
    """Write the textures and say how much of the body was seen."""
    args = parse(UnwrapArgs, __doc__)
    common = check(args)
    subject = setup.open_subject(common)
    folder = subject.root / args.split
    present = [path.name for path in texture_files(folder) if path.exists()]
    if present and not args.overwrite:
        raise UserError(
            f"{folder / 'smplx_optimized'} has {', '.join(present)} already; --overwrite replaces them"
        )
    frames = chosen_frames(subject.frames(args.split), args.max_frames)
    files = [FrameFiles(subject.root, args.split, index) for index in frames]
    subject.refuse([problem for entry in files for problem in view_problems(entry, args.albedo)])
    body = BodyModel(load_body_data(setup.body_path(common), args.config.body.gender), 0)
    textures = unwrap_split(
        subject,
        args.split,
        frames,
        body,
        args.size,
        args.albedo,
        lambda keys: tqdm(keys, desc="unwrapping", unit="frame"),
    )
    write_textures(folder, textures)
    print(f"wrote {', '.join(path.name for path in texture_files(folder))} to {folder / 'smplx_optimized'}")
    print(
        f"{len(frames)} frames; {textures.share_seen:.0%} of the body's texels are seen, the rest is filled in"
    )


def check(args: UnwrapArgs) -> setup.SubjectArgs:
    """Refuse wrong options; the options that all commands share."""
    setup.check_subject_id(args.subject_id)
    if not SIZES[0] <= args.size <= SIZES[1]:
        raise UserError(f"--size {args.size}: give {SIZES[0]} to {SIZES[1]} pixels")
    if args.max_frames < 1:
        raise UserError(f"--max_frames {args.max_frames}: give 1 or more")
    if args.albedo and args.split != CAPTURED:
        raise UserError("--albedo: only captured has albedo images; leave it out")
    return setup.SubjectArgs(
        args.subject_id, human_model_path=args.human_model_path, paths=args.paths, config=args.config
    )


if __name__ == "__main__":
    run_command(main)
