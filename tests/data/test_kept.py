"""What a subject's files gave is used again while the files are as they were, and never after a change."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from common.doctor import start
from common.doctor.start import check_before_training
from common.errors import UserError
from common.io.parameters import pack_params, read_smplx_params, unpack_params
from data import dataset, files_state, fingerprint
from data.dataset import TRAIN_SPLITS, Subject
from tests.data.tiny_subject import FRAMES, PATCH, write_subject


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files_state, "NEW_NS", 0)
    monkeypatch.setattr(dataset, "_code_state", lambda: "this code")
    return write_subject(tmp_path / "S")


@pytest.fixture
def opened(root: Path, tmp_path: Path):
    """Opens the subject as another process would."""
    return lambda: Subject(root, PATCH, tmp_path / "kept")


def change(path: Path) -> None:
    """Another content; size and time of the last write stay."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # some systems' clocks tick slowly
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def no_reading(*_: object) -> list[str]:
    raise AssertionError("files are read again")


def test_checks_are_made_once_and_warnings_said_each_time(opened, monkeypatch, caplog):
    monkeypatch.setattr(start, "_checked", lambda subject, splits: subject.check(splits) or "a warning")
    check_before_training(opened(), TRAIN_SPLITS)
    monkeypatch.setattr(dataset, "frame_problems", no_reading)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        check_before_training(opened(), TRAIN_SPLITS)
    assert "a warning" in caplog.text
    with pytest.raises(AssertionError, match="read again"):
        check_before_training(opened(), ("captured",))


@pytest.mark.parametrize("name", ["masks/0.png", "depths/0.npy", "cam_params/0.json"])
def test_a_changed_file_is_noticed(opened, root, name):
    opened().kept_text("check", TRAIN_SPLITS, lambda: "before")
    assert opened().kept_text("check", TRAIN_SPLITS, lambda: "after") == "before"
    change(root / "generated_0" / name)
    assert opened().kept_text("check", TRAIN_SPLITS, lambda: "after") == "after"


def test_a_damaged_subject_is_refused_each_time_and_a_lost_file_noticed(opened, root):
    (root / "generated_0/masks/0.png").rename(root / "aside")
    for _ in range(2):
        with pytest.raises(UserError, match=r"masks/0\.png"):
            check_before_training(opened(), ("generated_0",))
    (root / "aside").rename(root / "generated_0/masks/0.png")
    opened().kept_text("check", ("generated_0",), lambda: "found")
    (root / "generated_0/masks/0.png").unlink()
    with pytest.raises(UserError, match=r"masks/0\.png"):
        check_before_training(opened(), ("generated_0",))


def test_kept_parameters_are_those_of_the_files(opened, root, monkeypatch):
    for _ in range(2):
        found = opened().smplx_params(tuple(FRAMES))
        for split, frames in found.items():
            folder = root / split / "smplx_optimized/smplx_params"
            assert list(frames) == sorted(int(path.stem) for path in folder.iterdir())
            for index, params in frames.items():
                expected = read_smplx_params(folder / f"{index}.json")
                for name, value in vars(expected).items():
                    assert torch.equal(getattr(params, name), value), name
    monkeypatch.setattr(dataset, "read_smplx_params", no_reading)
    opened().smplx_params(tuple(FRAMES))
    assert unpack_params(pack_params({})) == {}


def test_the_fingerprint_is_kept_and_changes_with_the_files(opened, root, monkeypatch):
    first = fingerprint.subject_fingerprint(opened(), TRAIN_SPLITS)
    assert first == fingerprint.subject_fingerprint(Subject(root, PATCH), TRAIN_SPLITS)
    with monkeypatch.context() as context:
        context.setattr(fingerprint, "files_fingerprint", no_reading)
        assert fingerprint.subject_fingerprint(opened(), TRAIN_SPLITS) == first
    change(root / "generated_1/images/1.png")
    assert fingerprint.subject_fingerprint(opened(), TRAIN_SPLITS) != first


def test_what_is_not_needed_any_more_is_removed(opened, root, tmp_path):
    for i in range(3):
        kept = opened().kept_array("made", ("captured",), lambda i=i: np.array([i]))
        assert kept.tolist() == [i]
        change(root / "captured/images/0.png")
    opened().kept_array("other", ("captured",), lambda: np.array([7]))
    assert len(list((tmp_path / "kept").iterdir())) == 2


@pytest.mark.parametrize("of", ["a link", "a new file", "an unknown folder"])
def test_nothing_is_kept_where_changes_would_not_be_seen(opened, root, tmp_path, monkeypatch, of):
    if of == "a link":
        shutil.move(root / "captured/images/0.png", root / "captured/images/real")
        (root / "captured/images/0.png").symlink_to("real")
    elif of == "a new file":
        monkeypatch.setattr(files_state, "NEW_NS", 10**11)
    else:
        shutil.rmtree(root / "captured")
    for text in ("first", "second"):
        assert opened().kept_text("check", ("captured",), lambda text=text: text) == text
    assert not (tmp_path / "kept").exists()


def test_the_state_of_the_code_is_known_whatever_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(files_state, "NEW_NS", 0)
    monkeypatch.setattr(dataset, "_DATA", tmp_path / "data")
    (tmp_path / "common" / "deep").mkdir(parents=True)
    (tmp_path / "common" / "deep" / "module.py").write_text("x = 1")
    (tmp_path / "common" / "human_model_files").symlink_to(tmp_path)
    state = dataset._code_state.__wrapped__()
    assert state is not None and state == dataset._code_state.__wrapped__()
    (tmp_path / "common" / "deep" / "module.py").write_text("x = 12")
    assert dataset._code_state.__wrapped__() not in (state, None)


def test_other_code_reads_anew(opened, monkeypatch):
    opened().kept_text("check", ("captured",), lambda: "old")
    monkeypatch.setattr(dataset, "_code_state", lambda: "newer")
    assert opened().kept_text("check", ("captured",), lambda: "new") == "new"
