"""What training does when it is interrupted, refused, or meets a fault: one line, the right exit code, nothing lost."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.checkpoint import read_snapshot, save_snapshot
from common.errors import UserError
from common.objective import Objective
from common.snapshot_folder import available_steps, latest_snapshot
from common.training_log import TrainingLog
from tests.cli.commands import ROOT, SUBJECT, TRAIN, Workspace, listing, run_here
from tests.crash.run import differing

STEPS = 4  # of an epoch


@pytest.fixture
def fail(monkeypatch, capsys) -> Callable[..., str]:
    """Run a training that must fail: its one line, after checking its exit code."""

    def run(options: list[str], *more: str) -> str:
        with pytest.raises(SystemExit) as stop:
            run_here("main/train.py", [*options, *TRAIN, *more], monkeypatch)
        assert stop.value.code == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        line = said.splitlines()[-1]
        assert line.startswith("error: ")
        return line

    return run


def in_steps(monkeypatch, act: Callable[[int], None]) -> None:
    """Do something after each step of a training in this process, before it is saved."""
    write = TrainingLog.scalars

    def scalars(self, iteration, terms):
        write(self, iteration, terms)
        act(iteration)

    monkeypatch.setattr(TrainingLog, "scalars", scalars)


def start(space: Workspace, *more: str) -> subprocess.Popen[bytes]:
    """A training in a process of its own, with its first snapshot between epochs already there."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [
        sys.executable,
        str(ROOT / "main/train.py"),
        *space.options(**{"optim.n_epochs": "500"}),
        *TRAIN,
    ]
    steps = len(available_steps(space.snapshots))
    process = subprocess.Popen(
        [*command, "--save_every", "1", *more], env=environment, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while len(available_steps(space.snapshots)) == steps:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_signals_save_what_is_done_and_a_second_training_is_refused_meanwhile(with_field, tmp_path, fail):
    space = Workspace(with_field.root, with_field.subjects, tmp_path)
    first = start(space)
    line = fail(space.options(), "--overwrite")
    assert f"process {first.pid} on {socket.gethostname()}" in line and str(space.snapshots) in line
    first.send_signal(signal.SIGINT)
    said = first.communicate()[1].decode()
    assert first.returncode == 130 and said.splitlines()[-1] == "stopped by SIGINT"
    stopped_at = latest_snapshot(space.snapshots).position
    assert stopped_at is not None

    shutil.rmtree(space.snapshots / "steps", ignore_errors=stopped_at.step == 0)
    if not list(space.snapshots.glob("*.pth")):
        second = start(space)
    else:
        second = start(space, "--continue")
    second.send_signal(signal.SIGTERM)
    said = second.communicate()[1].decode()
    assert second.returncode == 143 and said.splitlines()[-1] == "stopped by SIGTERM"
    assert [path.name for path in space.snapshots.iterdir() if path.name.startswith(".")] == []
    assert latest_snapshot(space.snapshots).position is not None


def test_changed_options_are_refused_with_old_and_new(trained, tmp_path, fail):
    shutil.copytree(trained.snapshots, tmp_path / "model_dump" / SUBJECT)
    options = {"paths.output": str(tmp_path), "optim.n_epochs": "3", "optim.lr": "0.5"}
    before = listing(tmp_path)
    line = fail(trained.options(**options), "--continue", "--seed", "4")
    for change in ("optim.n_epochs 2 -> 3", "optim.lr 0.001 -> 0.5", "seed 0 -> 4", "--force"):
        assert change in line
    assert listing(tmp_path) == before


def test_changed_data_are_refused(trained, tmp_path, fail):
    space = trained.with_copied_subject(tmp_path / "subjects")
    shutil.copy(space.subject / "captured/masks/0.png", space.subject / "generated_0/masks/0.png")
    assert "content of the subject's files" in fail(space.options(**{"optim.n_epochs": "2"}), "--continue")


def test_nan_stops_with_frame_term_and_parameter_and_keeps_the_last_good_snapshot(
    with_field, tmp_path, fail, monkeypatch
):
    compute = Objective.training

    def training(self, frame):
        terms = compute(self, frame)
        if frame.split == "generated_1":
            terms["lap_rgb"] = terms["lap_rgb"] * float("nan")
        return terms

    monkeypatch.setattr(Objective, "training", training)
    space = Workspace(with_field.root, with_field.subjects, tmp_path)
    options = space.options(**{"optim.n_epochs": "2"})
    line = fail(options, "--save_every", "1")
    for part in (
        "frame generated_1_0",
        "loss term lap_rgb is nan",
        "gradient of persona.",
        "--skip_bad_frames",
    ):
        assert part in line
    found = list(tmp_path.rglob("snapshot*.pth"))
    assert (
        (str(latest_snapshot(space.snapshots).path) in line) if found else ("nothing was saved yet" in line)
    )

    run_here("main/train.py", [*options, *TRAIN, "--overwrite", "--skip_bad_frames"], monkeypatch)
    content = torch.load(space.snapshots / "snapshot_1.pth", weights_only=True)
    assert content["run"]["n_skipped"] == 2
    assert all(torch.isfinite(value).all() for value in content["network"].values())
    unvisited = [key for key in content["network"] if ".generated_1." in key]
    start = torch.load(space.snapshots / "snapshot_0.pth", weights_only=True)["network"]
    assert all(torch.equal(content["network"][key], start[key]) for key in unvisited)


def test_lost_data_file_ends_in_one_line_and_leaves_the_last_snapshot(
    with_field, tmp_path, fail, monkeypatch
):
    space = with_field.with_copied_subject(tmp_path / "subjects")
    space = Workspace(space.root, space.subjects, tmp_path / "output")
    lost = space.subject / "captured" / "depths" / "0.npy"
    in_steps(monkeypatch, lambda iteration: lost.unlink(missing_ok=True) if iteration == STEPS - 1 else None)
    line = fail(space.options(**{"optim.n_epochs": "3"}))
    assert f"missing file: {lost}" in line and "snapshot_0.pth; go on from it with --continue" in line
    assert torch.load(space.snapshots / "snapshot_0.pth", weights_only=True)["epoch"] == 0


@pytest.mark.parametrize("limit", [2_000, 200_000])  # bytes: already too small for the log, or for a snapshot
def test_full_disk_ends_in_one_line_and_leaves_the_last_snapshot(
    with_field, tmp_path, fail, monkeypatch, limit
):
    space = Workspace(with_field.root, with_field.subjects, tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(iteration: int) -> None:
        if iteration == STEPS:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))

    in_steps(monkeypatch, fill)
    try:
        line = fail(space.options(**{"optim.n_epochs": "2"}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot write" in line and "free space" in line and "snapshot_0.pth" in line
    assert [path.name for path in space.snapshots.iterdir()] == ["snapshot_0.pth"]
    assert latest_snapshot(space.snapshots).path.name == "snapshot_0.pth"


def test_read_only_output_is_refused_before_any_work(with_field, tmp_path, fail, monkeypatch):
    """The error is simulated: root, as tests often run, may write into any folder."""

    def refuse(path: Path, *args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(Objective, "training", None)
    line = fail(Workspace(with_field.root, with_field.subjects, tmp_path / "output").options())
    assert "Read-only file system; choose another --paths.output" in line


def test_deterministic_runs_end_in_the_very_same_snapshots(with_field, tmp_path, monkeypatch):
    contents = []
    for name in ("first", "second"):
        space = Workspace(with_field.root, with_field.subjects, tmp_path / name)
        try:
            options = space.options(**{"optim.n_epochs": "1"})
            run_here("main/train.py", [*options, *TRAIN, "--deterministic"], monkeypatch)
        finally:
            torch.use_deterministic_algorithms(False)
        contents.append(torch.load(space.snapshots / "snapshot_0.pth", weights_only=True))
    for content in contents:
        assert content["run"]["machine"]["deterministic"] == "True"
        del content["run"]["name"]
    assert list(differing(*contents, "snapshot")) == []


def test_a_pose_fit_that_broke_off_goes_on_to_the_very_same_poses(trained, tmp_path, fail, monkeypatch):
    few = {"optim.n_epochs": "3", "optim.fit_repeats": "1"}
    fit, contents = ("--fit_pose_to_test", "--continue", "--save_every", "1"), []
    for name in ("whole", "broken"):
        space = Workspace(trained.root, trained.subjects, tmp_path / name)
        folder = space.snapshots.with_name(f"{SUBJECT}_fit_pose_to_test")
        save_snapshot(
            folder / "snapshot_0.pth", read_snapshot(trained.snapshots / "snapshot_1.pth").at_epoch(0)
        )
        options = ["main/train.py", [*space.options(**few), "--no_lpips", *fit]]
        if name == "broken":
            with monkeypatch.context() as broken:
                n_steps = len(contents[0]["run"]["frames"])
                in_steps(broken, lambda iteration, last=2 * n_steps - 1: break_off(iteration == last))
                with pytest.raises(SystemExit):
                    run_here(*options, broken)
            assert latest_snapshot(folder).position.epoch == 1
        run_here(*options, monkeypatch)
        contents.append(torch.load(folder / "snapshot_2.pth", weights_only=True))
    for key in ("network", "optimizer"):
        assert list(differing(contents[0][key], contents[1][key], key)) == []


def break_off(is_now: bool) -> None:
    if is_now:
        raise UserError("broken off")
