"""Render all frames of a subject with a snapshot of its avatar (SPEC 5)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from tqdm import tqdm

from common.checkpoint import read_snapshot
from common.errors import UserError
from common.frame_output import write_frame
from common.io.files import inside
from common.pose_table import PoseTable
from common.trainer import PersonModel
from data.dataset import TEST, Subject, fitting_list, rendering_list
from data.frame import FrameKey
from main import setup


@dataclass(frozen=True)
class TestArgs(setup.SubjectArgs):
    """Options of testing."""

    test_epoch: int | None = None
    """Epoch of the snapshot (default: the newest)."""
    fit_pose_to_test: bool = False
    """Render the test frames with the poses fitted to them."""
    unfitted_test: bool = False
    """Render the test frames with the poses of their files, not fitted to the avatar, into output/result/S."""


@torch.no_grad()
def main(args: TestArgs) -> None:
    """Write renders, meshes, normals and depths of every frame into output/result/<subject>."""
    if args.fit_pose_to_test and args.unfitted_test:
        raise UserError("--fit_pose_to_test and --unfitted_test exclude each other; give one of them")
    device = setup.choose_device(args.device)
    source = setup.snapshot_file(args, args.test_epoch, args.fit_pose_to_test)
    subject = setup.open_subject(args)
    subject.check_frames(listed_frames(args, subject))
    poses = PoseTable(subject.smplx_params((TEST,))) if args.unfitted_test else None
    model = setup.load_snapshot_person(args, read_snapshot(source), source, poses).to(device)
    folder = inside(
        args.paths.output, args.paths.output / "result" / setup.model_folder(args, args.fit_pose_to_test).name
    )
    for split, index in tqdm(frames_to_render(args, subject, model, source), desc="frames"):
        frame = subject.load(split, index).to(device)
        pose = model.smplx_param_dict.pose(split, index)
        body_vertices = model.persona.body_vertices(pose, frame.camera)
        write_frame(folder, frame, model.persona(pose, frame.camera), body_vertices, model.persona.body)
    setup.logger.info("renders are in %s", folder)


def listed_frames(args: TestArgs, subject: Subject) -> list[FrameKey]:
    """The frames of the training splits, or the test frames."""
    wants_test = args.fit_pose_to_test or args.unfitted_test
    return fitting_list(subject) if wants_test else rendering_list(subject)


def frames_to_render(args: TestArgs, subject: Subject, model: PersonModel, source: Path) -> list[FrameKey]:
    """The listed frames; UserError if the snapshot lacks a pose."""
    keys = listed_frames(args, subject)
    missing = [key for key in keys if key not in model.smplx_param_dict]
    if missing:
        split, index = missing[0]
        raise UserError(
            f"{source} has no pose for {split} frame {index} ({len(missing)} missing); "
            "the snapshot belongs to other frames"
            + ("; fit first: main/train.py --fit_pose_to_test --continue" if args.fit_pose_to_test else "")
        )
    return keys


if __name__ == "__main__":
    setup.run(TestArgs, main, __doc__)
