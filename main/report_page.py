"""The report of a subject's training, for the commands that write it."""

from __future__ import annotations

from pathlib import Path

import torch

from common.checkpoint import read_snapshot
from common.report.report import ReportInput, write_report
from main import setup


def default_output(args: setup.SubjectArgs) -> Path:
    """Where a report is written unless the user says otherwise."""
    return args.paths.output / "report" / f"{args.subject_id}.html"


def write_subject_report(
    args: setup.SubjectArgs, device: torch.device, epoch: int | None = None, output: Path | None = None
) -> Path:
    """Write the report of a snapshot (the newest unless an epoch is given); the page's path."""
    source = setup.snapshot_file(args, epoch, fit_pose_to_test=False)
    subject, snapshot = setup.open_subject(args), read_snapshot(source)
    model = setup.load_snapshot_person(args, snapshot, source).to(device)
    results = args.paths.output / "result"
    path = output or default_output(args)
    write_report(
        path,
        ReportInput(
            name=args.subject_id,
            source=source,
            snapshot=snapshot,
            model=model,
            subject=subject,
            config=args.config,
            log_folder=args.paths.output / "log" / args.subject_id,
            results=[results / (args.subject_id + setup.FIT_SUFFIX), results / args.subject_id],
            device=device,
        ),
    )
    return path
