"""What a subject is checked for before training: fast enough to be done every time."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from common.doctor.findings import Findings
from common.doctor.frame_maps import check_mask
from common.doctor.person import check_camera, check_identity, check_params
from common.errors import UserError
from common.io.image import image_size, read_mask
from common.io.parameters import read_camera, read_smplx_params
from data.dataset import Subject
from data.frame import CAPTURED, FrameFiles

logger = logging.getLogger(__name__)
_SOME = 3  # this many are told


def check_before_training(subject: Subject, splits: Sequence[str]) -> None:
    """Refuse a subject that cannot be trained and warn of implausible values.

    Looked at: that every file is there, of the right size and not truncated; all values of json files; the mask of
    the photo. Other pixels and the fitted body's silhouette take too long and are left to tools/doctor.py.
    UserError with the first few problems. Files that have not changed since they were found right are not read.
    """
    warnings = subject.kept_text("check", splits, lambda: _checked(subject, splits))
    if warnings:
        logger.warning("%s: %s", subject.root, warnings)


def _checked(subject: Subject, splits: Sequence[str]) -> str:
    """The first few warnings of a subject that can be trained."""
    subject.check(splits)
    findings = Findings()
    if CAPTURED in splits:
        check_identity(findings, subject.identity)
    for split in splits:
        for index in subject.frames(split):
            _check_frame(findings, FrameFiles(subject.root, split, index))
    advice = f"see all with tools/doctor.py --subject_id {subject.root.name}"
    errors, warnings = (
        [f"{entry.check}: {entry.text}" for entry in findings.entries if entry.level == level]
        for level in ("error", "warning")
    )
    if errors:
        raise UserError(f"{subject.root}: {_some(errors)}; {advice}")
    return f"{_some(warnings)}; {advice}" if warnings else ""


def _some(messages: list[str]) -> str:
    rest = f"; and {len(messages) - _SOME} more" if len(messages) > _SOME else ""
    return "; ".join(messages[:_SOME]) + rest


def _check_frame(findings: Findings, files: FrameFiles) -> None:
    where = f"{files.split} frame {files.index}"
    size = image_size(files.image)
    check_camera(findings, where, read_camera(files.camera, *size))
    params = read_smplx_params(files.params)
    check_params(findings, where, params)
    if params.trans[2] <= 0:  # the pelvis of the unposed body is near the origin
        findings.error(
            "person is behind the camera", f"{where}: trans {params.trans.tolist()}",
            "root_pose and trans are in camera space: x right, y down, z forward",
        )  # fmt: skip
    if files.split == CAPTURED:
        check_mask(findings, where, read_mask(files.mask, size)[0].numpy() > 0)
