"""Running the project's scripts: as processes, or in this process where many runs are needed."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUBJECT = "tiny"
SCRIPTS = [
    "main/train.py",
    "main/test.py",
    "main/get_neutral_pose.py",
    "main/animation.py",
    "main/viewer.py",
    "main/export.py",
    "tools/prepare_fit_pose_to_test.py",
    "tools/eval_neuman.py",
    "tools/eval_xhumans.py",
    "tools/prepare_body_model.py",
    "tools/report.py",
    "tools/make_demo_subject.py",
    "tools/doctor.py",
    "tools/unwrap_texture.py",
    "tools/picture_subject.py",
    "tools/export_smplx_model.py",
    "tools/convert_motion.py",
    "tools/make_demo_motion.py",
    "tools/diffused_skinning_weights/make_skinning_weight.py",
    "tools/ablation.py",
    "tools/benchmark.py",
    "tools/compare_paths.py",
    "tools/convert_snapshot.py",
    "tools/evaluate_demo.py",
    "tools/make_demo_body.py",
    "tools/make_pictures.py",
]


@dataclass(frozen=True)
class Workspace:
    """Where the tiny subject's data and results are."""

    root: Path
    subjects: Path
    output: Path

    @property
    def subject(self) -> Path:
        """The subject's data."""
        return self.subjects / SUBJECT

    @property
    def snapshots(self) -> Path:
        """The subject's snapshots."""
        return self.output / "model_dump" / SUBJECT

    @property
    def body(self) -> Path:
        """The body model."""
        return ROOT / "data" / "demo_body"

    @property
    def field(self) -> Path:
        """The skinning field."""
        return self.root / "field"

    def options(self, **changed: str | Path | None) -> list[str]:
        """Options of a command on the subject; keyword `field_resolution="8"` is `--field_resolution 8`."""
        options = {
            "subject_id": SUBJECT,
            "device": "cpu",
            "paths.subjects": self.subjects,
            "paths.output": self.output,
            "human_model_path": self.body,
            "skinning_field_path": self.field,
            "field.resolution": 24,
            **changed,
        }
        given = {name: value for name, value in options.items() if value is not None}
        return [word for name, value in given.items() for word in (f"--{name}", str(value))]

    def with_copied_subject(self, folder: Path, *left_out: str) -> Workspace:
        """The same with a copy of the subject's data, for damaging it."""
        shutil.copytree(self.subject, folder / SUBJECT, ignore=shutil.ignore_patterns("truth", *left_out))
        return replace(self, subjects=folder)


TRAIN = ("--no_lpips", "--no_report", "--body.n_subdivisions", "0")


def run_process(script: str, *options: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a script as a user does, from the folder `cwd`, without access to a network."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""}
    environment |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    path = os.path.relpath(ROOT / script, cwd)
    command = [sys.executable, path, *map(str, options)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def succeed(script: str, *options: str, cwd: Path = ROOT) -> str:
    """Run a script that must end well; what it printed on stdout."""
    done = run_process(script, *options, cwd=cwd)
    assert done.returncode == 0, f"{script} ended with {done.returncode}: {done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr
    return done.stdout


def run_here(script: str, options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script in this process as if from the command line."""
    monkeypatch.setattr(sys, "argv", [script, *options])
    monkeypatch.setattr(sys, "path", list(sys.path))
    runpy.run_path(str(ROOT / script), run_name="__main__")


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}
