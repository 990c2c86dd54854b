"""What the commands share: their common options, and building body, field, avatar and subject from them."""

from __future__ import annotations

import hashlib
import logging
import re
import sys
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import torch
import tyro

from common.body_model.body import BodyModel
from common.body_model.files import is_same_body, load_body_data
from common.camera import Camera
from common.checkpoint import Snapshot, find_snapshot, newest_snapshot
from common.command_line import parse
from common.errors import UserError, run_command
from common.evaluation import FIT_SUFFIX
from common.inference import load_person, subdivisions_of
from common.io.files import inside
from common.perceptual import Lpips, load_lpips
from common.pose_table import PoseTable
from common.skinning_field import SkinningField, ensure_skinning_field
from common.trainer import PersonModel
from data.dataset import Subject
from main.config import (
    DEMO_BODY,
    DEMO_SKINNING_FIELD,
    HUMAN_MODEL_FILES,
    KEPT_OF_SUBJECTS,
    SKINNING_FIELD,
    Config,
    Paths,
)
from main.config_check import check_config, check_seed

# Subjects that are made on first use (SPEC 16).
DEMO_SIZES = {"demo": "small", "demo_full": "full", "demo_bench": "bench", "demo_tiny": "tiny"}
DEMO_SUBDIVISIONS = {"demo": 1, "demo_full": 2, "demo_bench": 2, "demo_tiny": 1}
PUBLISHED_SUBDIVISIONS = 2
MAX_NAME = 100  # characters of a subject's name: files are named after it

logger = logging.getLogger("avatar")
Args = TypeVar("Args", bound="SubjectArgs")


@dataclass(frozen=True)
class SubjectArgs:
    """Options of every command that works on one subject."""

    subject_id: str
    """Name of a folder in data/subjects; `demo` (or `demo_full`, `demo_tiny`) is made on first use."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    seed: int = 0
    """Seed of all random numbers."""
    human_model_path: Path | None = None
    """Folder of the body model files (default: common/human_model_files; the demo body for the demo)."""
    skinning_field_path: Path | None = None
    """Folder of the diffused skinning field (default: tools/diffused_skinning_weights)."""
    paths: Paths = field(default_factory=Paths)
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    @property
    def is_demo(self) -> bool:
        """Whether this is one of the subjects that are made on first use."""
        return self.subject_id in DEMO_SIZES


def run(args_type: type[Args], command: Callable[[Args], None], description: str) -> None:
    """Parse the command line into `args_type` and run the command; user errors end with exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("numba").setLevel(logging.WARNING)

    def main() -> None:
        args = parse(args_type, description)
        check_subject_id(args.subject_id)
        check_config(args.config)
        check_seed(args.seed)
        command(args)

    run_command(main)


def check_subject_id(name: str) -> None:
    """A subject's name is a plain folder name (SPEC 17)."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*", name):
        raise UserError(
            f"--subject_id {name!r} is not a plain folder name; use letters, digits, '_', '-' and '.' only"
        )
    if len(name) > MAX_NAME:
        raise UserError(f"--subject_id of {len(name)} characters: give at most {MAX_NAME}")
    if name.endswith(FIT_SUFFIX):
        raise UserError(
            f"--subject_id {name}: that is where the fit of {name.removesuffix(FIT_SUFFIX)} is kept; "
            "choose another name"
        )


def choose_device(name: str) -> torch.device:
    """The device of a run, chosen once."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no CUDA device; use --device cpu, or check the driver")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def body_path(args: SubjectArgs) -> Path:
    """Folder of the body files for this subject."""
    if args.human_model_path is not None:
        return args.human_model_path
    return DEMO_BODY if args.is_demo else HUMAN_MODEL_FILES


def load_body(args: SubjectArgs, n_levels: int | None = None) -> BodyModel:
    """The body model, subdivided as the configuration or the caller says."""
    data = load_body_data(body_path(args), args.config.body.gender)
    return BodyModel(data, n_levels if n_levels is not None else n_subdivisions(args))


def n_subdivisions(args: SubjectArgs) -> int:
    """How often the body is subdivided for this subject."""
    configured = args.config.body.n_subdivisions
    return (
        configured
        if configured is not None
        else DEMO_SUBDIVISIONS.get(args.subject_id, PUBLISHED_SUBDIVISIONS)
    )


def load_field(
    args: SubjectArgs, body: BodyModel | None = None, ahead: Future[SkinningField] | None = None
) -> SkinningField:
    """The diffused skinning field, made on first use.

    body: the avatar's, which may be the one it belongs to. ahead: what `read_ahead` of `field_folder` gave.
    """
    config = args.config.body
    if body is None or not is_same_body(body_path(args), config.gender, config.field_gender):
        body = BodyModel(load_body_data(body_path(args), config.field_gender), 0)
    device = choose_device(args.device)
    return ensure_skinning_field(field_folder(args), body, args.config.field, device=device, ahead=ahead)


def field_folder(args: SubjectArgs) -> Path:
    """Where the diffused skinning field is."""
    return args.skinning_field_path or (demo_field_folder() if args.is_demo else SKINNING_FIELD)


def demo_field_folder() -> Path:
    """Where the demo body's field is kept; a changed body gets another folder."""
    version = hashlib.sha256((DEMO_BODY / "body.npz").read_bytes()).hexdigest()[:12]
    return DEMO_SKINNING_FIELD / version


def subject_path(args: SubjectArgs) -> Path:
    """Folder of the subject's data; a demo subject is made if it is not there yet."""
    path = args.paths.subjects / args.subject_id
    if path.is_dir():
        return path
    if args.is_demo:
        from common.demo.subject import make_demo_subject

        logger.info("making the demo subject in %s (once)", path)
        make_demo_subject(path, DEMO_SIZES[args.subject_id], seed=0)
        return path
    subjects = args.paths.subjects.iterdir() if args.paths.subjects.is_dir() else ()
    known = ", ".join(sorted(entry.name for entry in subjects if entry.is_dir() and entry.name[0] != "."))
    raise UserError(
        f"no subject {args.subject_id!r} in {args.paths.subjects}; there are: {known or 'none'}; "
        "--subject_id demo needs no data"
    )


def open_subject(args: SubjectArgs) -> Subject:
    """The subject's data, not checked yet."""
    return Subject(subject_path(args), args.config.face_patch_size, KEPT_OF_SUBJECTS / args.subject_id)


def model_folder(args: SubjectArgs, fit_pose_to_test: bool) -> Path:
    """Folder of the subject's snapshots."""
    name = args.subject_id + (FIT_SUFFIX if fit_pose_to_test else "")
    return inside(args.paths.output, args.paths.output / "model_dump" / name)


def load_perceptual(
    args: SubjectArgs, device: torch.device, wanted: bool, weights: Path | None
) -> Lpips | None:
    """The perceptual loss, unless it is switched off or this is the demo without weights of the user's."""
    if not wanted:
        logger.info("perceptual loss: off (--no_lpips)")
        return None
    if args.is_demo and weights is None:
        logger.info("perceptual loss: off for the demo; --lpips_weights DIR switches it on")
        return None
    return load_lpips("vgg", weights).to(device)


def snapshot_file(args: SubjectArgs, epoch: int | None, fit_pose_to_test: bool) -> Path:
    """The snapshot of an epoch, or the newest."""
    folder = model_folder(args, fit_pose_to_test)
    return newest_snapshot(folder) if epoch is None else find_snapshot(folder, epoch)


def load_snapshot_person(
    args: SubjectArgs, snapshot: Snapshot, source: Path, poses: PoseTable | None = None
) -> PersonModel:
    """Avatar and poses of a snapshot; body files and field are all that is needed besides it."""
    data = load_body_data(body_path(args), args.config.body.gender)
    levels = subdivisions_of(snapshot, data, source, args.config.body.n_subdivisions)
    body = BodyModel(data, levels)
    return load_person(snapshot, source, body, load_field(args, body), args.config.avatar, poses)


def world_camera(device: torch.device) -> Camera:
    """The camera whose space is the world, for poses that no image belongs to."""
    return Camera.identity((1.0, 1.0), (0.0, 0.0), 1, 1).to(device)
