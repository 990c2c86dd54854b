"""Which of a subject's files a training depends on, and one short text that tells whether they have changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from common.run_state import files_fingerprint
from data.dataset import CAPTURED, FRAME_LIST, GENERATED, Subject
from data.frame import FrameFiles


def subject_fingerprint(subject: Subject, splits: Sequence[str]) -> str:
    """Fingerprint of everything that is read from a subject when training on `splits`."""
    return subject.kept_text(
        "fingerprint", splits, lambda: files_fingerprint(subject.root, _files(subject, splits))
    )


def _files(subject: Subject, splits: Sequence[str]) -> Iterator[Path]:
    for split in splits:
        folder = subject.root / split
        if split in GENERATED:
            yield folder / FRAME_LIST
        yield from (path for path in (folder / "smplx_optimized").rglob("*") if path.is_file())
        for index in subject.frames(split):
            yield from _frame_files(FrameFiles(subject.root, split, index))


def _frame_files(files: FrameFiles) -> Iterator[Path]:
    yield from (files.image, files.mask, files.camera, *files.depth, *files.normal, *files.seg)
    if files.split == CAPTURED:
        yield from (files.albedo, *files.face_patch)
