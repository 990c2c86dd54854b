"""Check machine, body files, weights, a subject, a motion and a snapshot; say what is wrong and what to do.

Exit code 0: fine, 1: warnings, 2: errors.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro
from tqdm import tqdm

from common.body_model.body import BodyModel
from common.body_model.data import BodyData
from common.body_model.files import load_body_data
from common.checkpoint import available_epochs, newest_snapshot
from common.command_line import parse
from common.doctor.body_files import check_body_files
from common.doctor.environment import check_environment
from common.doctor.findings import Findings, report, write_report
from common.doctor.motion import check_motion
from common.doctor.picture import write_picture
from common.doctor.snapshot import check_snapshot
from common.doctor.subject import check_subject, fitting_identity, frame_keys, readable
from common.doctor.weights import check_weights
from common.errors import run_command
from common.motion import HandComponents
from data.dataset import TRAIN_SPLITS, Subject
from main import setup
from main.config import ROOT, Config, Paths


@dataclass(frozen=True)
class DoctorArgs:
    """Options of the check-up; without a subject, a motion or a snapshot, machine and files are checked."""

    subject_id: str | None = None
    """Name of a folder in data/subjects; `demo` is made on first use."""
    motion_path: Path | None = None
    """A motion, as for main/animation.py."""
    snapshot: Path | None = None
    """A snapshot file (default: the newest of the subject, if there is one)."""
    human_model_path: Path | None = None
    """Folder of the body model files (default: common/human_model_files; the demo body for the demo)."""
    lpips_weights: Path | None = None
    """Folder of the perceptual weights (default: torch's hub cache)."""
    output: Path | None = None
    """Picture of the fitted body over the subject's frames (default: output/doctor/<subject>.png)."""
    json: Path | None = None
    """Write all findings as json to this file too."""
    all: bool = False
    """Print every finding, not only the first few of a kind."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    paths: Paths = field(default_factory=Paths)


def main(args: DoctorArgs) -> int:
    """Check everything that was asked for; returns the exit code."""
    if args.subject_id is not None:
        setup.check_subject_id(args.subject_id)
    common = setup.SubjectArgs(
        args.subject_id or "", human_model_path=args.human_model_path, paths=args.paths, config=args.config
    )
    findings = Findings()
    check_environment(findings, ROOT, args.paths.output)
    genders = tuple(dict.fromkeys((args.config.body.gender, args.config.body.field_gender)))
    is_needed = args.human_model_path is not None or (args.subject_id is not None and not common.is_demo)
    check_body_files(findings, setup.body_path(common), genders, is_needed)
    check_weights(findings, args.lpips_weights, is_needed=not common.is_demo)
    body = readable(lambda: load_body_data(setup.body_path(common), args.config.body.gender))
    subject = look_at_subject(findings, args, common, body) if args.subject_id is not None else None
    if args.motion_path is not None:
        components = HandComponents(setup.body_path(common), args.config.body.gender)
        check_motion(findings, args.motion_path, components)
    snapshot = args.snapshot or newest(args, common)
    if snapshot is not None:
        frames = (
            None
            if subject is None
            else {s: list(readable(partial(subject.frames, s)) or ()) for s in TRAIN_SPLITS}
        )
        check_snapshot(findings, snapshot, body, frames)
    print(report(findings, args.all))
    if args.json is not None:
        write_report(args.json, findings)
    return findings.exit_code


def look_at_subject(
    findings: Findings, args: DoctorArgs, common: setup.SubjectArgs, body: BodyData | None
) -> Subject | None:
    """Check the subject and draw its picture; None if there is no such subject."""
    findings.topic = f"subject ({args.subject_id})"
    subject = findings.attempt("folder", lambda: setup.open_subject(common))
    if subject is None:
        return None
    model = None if body is None else BodyModel(body, 0)

    def bar(keys: list[tuple[str, int]]) -> Iterable[tuple[str, int]]:
        return tqdm(keys, desc="looking at frames", unit="frame", leave=False)

    check_subject(findings, subject, model, bar)
    if model is not None:
        picture = args.output or args.paths.output / "doctor" / f"{args.subject_id}.png"
        n_drawn = write_picture(
            picture, subject, model, fitting_identity(subject, model), frame_keys(subject)
        )
        if n_drawn:
            findings.ok(
                "picture", f"{picture}: the fitted body (blue) and the mask's outline over {n_drawn} frames"
            )
    return subject


def newest(args: DoctorArgs, common: setup.SubjectArgs) -> Path | None:
    """The subject's newest snapshot, if it has any."""
    if args.subject_id is None or not available_epochs(setup.model_folder(common, False)):
        return None
    return newest_snapshot(setup.model_folder(common, False))


def run() -> None:
    """Parse the command line and run."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    sys.exit(main(parse(DoctorArgs, __doc__)))


if __name__ == "__main__":
    run_command(run)
