"""Which snapshot a run goes on from when files are damaged, and which files it keeps."""

from __future__ import annotations

import io
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.checkpoint import Snapshot, newest_snapshot, read_snapshot, save_snapshot, snapshot_path
from common.errors import UserError
from common.run_state import Position, RunFacts, run_entry
from common.snapshot_folder import (
    SnapshotFolder,
    available_steps,
    latest_snapshot,
    remove_unfinished,
    step_snapshot_path,
)

N_STEPS = 10  # an epoch


def at(iteration: int, name: str = "a run") -> Snapshot:
    """A snapshot after `iteration` steps."""
    position = Position(iteration // N_STEPS, iteration % N_STEPS, iteration)
    facts = RunFacts.of_new_run({}, "", [], torch.device("cpu"))
    run = run_entry(replace(facts, name=name), position, 1.0, 0)
    return Snapshot((iteration - 1) // N_STEPS, {"a": torch.full((400,), float(iteration))}, None, run)


def save(folder: Path, *iterations: int) -> None:
    for iteration in iterations:
        is_epoch = iteration % N_STEPS == 0
        path = (
            snapshot_path(folder, iteration // N_STEPS - 1)
            if is_epoch
            else step_snapshot_path(folder, iteration)
        )
        save_snapshot(path, at(iteration))


def latest(folder: Path) -> int:
    return int(latest_snapshot(folder).snapshot.network["a"][0])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


@pytest.mark.parametrize(
    ("saved", "expected"), [((10, 20), 20), ((10, 13, 16), 16), ((10, 13, 16, 20), 20), ((3, 6), 6)]
)
def test_the_furthest_snapshot_counts_whether_of_an_epoch_or_between(tmp_path, saved, expected):
    save(tmp_path, *saved)
    assert latest(tmp_path) == expected


@pytest.mark.parametrize("damage", [cut, empty, garbage])
@pytest.mark.parametrize(
    ("saved", "damaged", "expected"), [((10, 20), 20, 10), ((10, 13, 16), 16, 13), ((10, 13), 13, 10)]
)
def test_damaged_newest_snapshot_falls_back_with_a_warning(
    tmp_path, caplog, damage, saved, damaged, expected
):
    save(tmp_path, *saved)
    path = snapshot_path(tmp_path, 1) if damaged == 20 else step_snapshot_path(tmp_path, damaged)
    damage(path)
    with caplog.at_level(logging.WARNING):
        assert latest(tmp_path) == expected
    assert path.name in caplog.text and "going on from the snapshot before it" in caplog.text


def test_commands_that_render_fall_back_too(tmp_path, caplog):
    save(tmp_path, 10, 20, 23)
    cut(snapshot_path(tmp_path, 1))
    with caplog.at_level(logging.WARNING):
        assert newest_snapshot(tmp_path) == snapshot_path(tmp_path, 0)
    assert "snapshot_1.pth" in caplog.text


def test_one_wrong_bit_in_a_tensor_is_damage(tmp_path):
    save(tmp_path, 10)
    path = snapshot_path(tmp_path, 0)
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((9,), 10.0).numpy().tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"snapshot_0\.pth .*wrong checksum"):
        read_snapshot(path)


def test_nothing_undamaged_is_refused_with_the_newest_one_s_reason(tmp_path):
    with pytest.raises(UserError, match="train first"):
        latest_snapshot(tmp_path)
    save(tmp_path, 10)
    cut(snapshot_path(tmp_path, 0))
    for choose in (latest_snapshot, newest_snapshot):
        with pytest.raises(UserError, match=r"snapshot_0\.pth is truncated"):
            choose(tmp_path)


def test_what_comes_back_wrong_from_the_disk_gets_no_final_name(tmp_path, monkeypatch):
    save_for_real = torch.save

    def save_wrong(content, file):
        whole = io.BytesIO()
        save_for_real(content, whole)
        file.write(whole.getvalue()[:700] + b"\xff" * 64 + whole.getvalue()[764:])

    monkeypatch.setattr(torch, "save", save_wrong)
    with pytest.raises(UserError, match="came back damaged"):
        save_snapshot(tmp_path / "snapshot_0.pth", at(10))
    assert list(tmp_path.iterdir()) == []


def test_the_last_two_snapshots_between_epochs_are_kept(tmp_path):
    folder = SnapshotFolder(tmp_path, Position(0, 0, 0))
    for iteration in (3, 6, 9, 12, 15):
        folder.save_step(at(iteration), iteration)
    assert available_steps(tmp_path) == [12, 15]


@pytest.mark.parametrize("first", [3, 10])
def test_first_snapshot_of_a_new_run_removes_those_of_the_earlier_one(tmp_path, first):
    save(tmp_path, 10, 20, 30, 33, 36)
    folder = SnapshotFolder(tmp_path, Position(0, 0, 0))
    if first == 10:
        folder.save_epoch(at(10))
    else:
        folder.save_step(at(3), 3)
    assert [path.name for path in tmp_path.glob("*.pth")] == (["snapshot_0.pth"] if first == 10 else [])
    assert available_steps(tmp_path) == ([] if first == 10 else [3])


def test_going_on_replaces_only_what_lies_ahead(tmp_path):
    save(tmp_path, 10, 20, 13, 16)
    SnapshotFolder(tmp_path, Position(1, 3, 13)).save_step(at(14), 14)
    assert [path.name for path in tmp_path.glob("*.pth")] == ["snapshot_0.pth"]
    assert available_steps(tmp_path) == [13, 14]


def test_new_run_killed_before_it_has_removed_the_earlier_one_is_the_one_to_go_on(tmp_path):
    save(tmp_path, 10, 20)
    save_snapshot(step_snapshot_path(tmp_path, 3), at(3, name="another run"))
    assert latest(tmp_path) == 3


@pytest.mark.parametrize("earlier", [(10, 20, 30), (10, 20, 33, 36)])
@pytest.mark.parametrize("first", [3, 10])
def test_the_same_where_both_runs_have_snapshots_of_one_kind(tmp_path, caplog, earlier, first):
    save(tmp_path, *earlier)
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.pth")}
    is_epoch = first % N_STEPS == 0
    path = snapshot_path(tmp_path, 0) if is_epoch else step_snapshot_path(tmp_path, first)
    kept.pop(path, None)
    save_snapshot(path, at(first, name="another run"))
    with caplog.at_level(logging.WARNING):
        assert latest(tmp_path) == first
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_snapshots_of_one_run_count_by_their_place_however_they_were_copied(tmp_path):
    save(tmp_path, 10, 20, 30, 13, 16)
    for i, path in enumerate(sorted(tmp_path.rglob("*.pth"), reverse=True)):
        os.utime(path, ns=(10**18 + i, 10**18 + i))
    assert latest(tmp_path) == 30


def test_published_snapshot_counts_by_its_epoch(tmp_path):
    save_snapshot(snapshot_path(tmp_path, 0), Snapshot(0, {"a": torch.tensor([-1.0])}, None))
    assert latest(tmp_path) == -1 and latest_snapshot(tmp_path).position is None
    save(tmp_path, 13)
    assert latest(tmp_path) == 13


def test_leftovers_of_a_killed_save_are_removed(tmp_path):
    save(tmp_path, 10, 13)
    for folder in (tmp_path, tmp_path / "steps"):
        (folder / ".snapshot_9.123.tmp.pth").write_text("half")
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*.pth")) == ["snapshot_0.pth", "snapshot_step_13.pth"]
