"""The command line shared by eval_neuman.py and eval_xhumans.py: two doors to one evaluation (SPEC 14)."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from common.command_line import parse
from common.errors import UserError, run_command
from common.evaluation import evaluate, report, write_evaluation
from common.perceptual import Lpips, WeightsMissing, load_lpips
from main.config import ROOT, Paths
from main.setup import check_subject_id, choose_device


@dataclass(frozen=True)
class EvaluationArgs:
    """Options of the evaluation."""

    output_path: Path
    """Folder of the renders (output/result/S_fit_pose_to_test); the figures are written there."""
    subject_id: str
    """Name of a folder in data/subjects."""
    lpips_weights: Path | None = None
    """Folder of the AlexNet weights and LPIPS heads (default: torch's hub cache, downloaded if online)."""
    paths: Paths = field(default_factory=Paths)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""


def find_lpips(weights_dir: Path | None) -> tuple[Lpips | None, str]:
    """LPIPS and a note on it; without a folder being asked for, missing weights only mean no LPIPS."""
    try:
        return load_lpips("alex", weights_dir), "AlexNet, version 0.1"
    except WeightsMissing as error:
        if weights_dir is not None:
            raise
        return None, f"not available; {error}"


def run(args: EvaluationArgs) -> None:
    """Evaluate, print the figures and write them beside the renders."""
    check_subject_id(args.subject_id)
    device = choose_device(args.device)
    subject = args.paths.subjects / args.subject_id
    if not subject.is_dir():
        raise UserError(f"{subject}: no such folder; --subject_id is the subject that the renders show")
    from_root = ROOT / args.output_path
    renders = from_root if not args.output_path.is_dir() and from_root.is_dir() else args.output_path
    lpips, note = find_lpips(args.lpips_weights)
    evaluation = evaluate(subject, renders, None if lpips is None else lpips.to(device), note, device)
    write_evaluation(evaluation, renders)
    print(report(evaluation))
    print(f"\nwritten to {renders / 'evaluation.json'} and evaluation.csv")


def main(description: str) -> None:
    """Parse the command line and run."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    run_command(lambda: run(parse(EvaluationArgs, description)))
