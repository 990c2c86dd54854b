"""Nothing outside of a subject's folder is read, and what its owner has linked is."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UserError
from data.dataset import Subject
from tests.data.tiny_subject import PATCH
from tests.fuzz.folders import KEPT, write_folders


@pytest.fixture
def subject(tmp_path) -> Path:
    return write_folders(tmp_path)


def test_links_within_a_subject_and_to_a_subject_are_followed(subject):
    photo = subject / "captured/images/0.png"
    photo.rename(photo.with_name("kept.png"))
    photo.symlink_to("kept.png")
    (subject.parent / "link").symlink_to(subject)
    assert Subject(subject.parent / "link", PATCH).problems((*KEPT,)) == []


@pytest.mark.parametrize(
    "line", ["..", "../../outside/captured/0", "/etc/passwd", "-1", "\u0663", "1e3", "0/../1", "9" * 5000]
)
def test_frame_lists_hold_frame_numbers_only(subject, line):
    (subject / "generated_0/frame_idx_list.txt").write_text(f"0\n{line}\n")
    with pytest.raises(UserError, match=r"frame_idx_list\.txt: .* is not a frame index"):
        Subject(subject).frames("generated_0")
