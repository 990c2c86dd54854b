"""The script for machines with a GPU: which parts it runs, and what it says of them; with a stand-in for Python."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = """#!/bin/sh
case "$*" in
    -c*) exit {has_gpu} ;;
    *tests/golden*) echo "one test failed"; exit 1 ;;
    *compare_paths*) sleep 60 ;;
    *) echo "$*" ;;
esac
"""


def run(folder: Path, *options: str, has_gpu: bool = True) -> subprocess.CompletedProcess[str]:
    python = folder / "python"
    python.write_text(STAND_IN.format(has_gpu=0 if has_gpu else 1))
    python.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(python), "GPU_LOGS": str(folder / "logs"), "GPU_LIMIT": "1"}
    command = ["bash", str(ROOT / "tests/run_on_gpu.sh"), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_parts_that_fail_or_hang_do_not_keep_the_others_from_running(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.returncode == 1
    _, _, summary = result.stdout.partition("=== summary")
    rows = dict(line.split()[:2] for line in summary.splitlines()[1:])
    failed = {"golden", "paths"}
    assert rows == {part: "FAILED" if part in failed else "passed" for part in rows}
    assert list(rows) == run(tmp_path, "--list").stdout.split()
    assert "one test failed" in (tmp_path / "logs" / "golden.log").read_text()


def test_chosen_parts_run_in_the_order_given(tmp_path: Path) -> None:
    result = run(tmp_path, "--only", "benchmark,engine")
    assert result.returncode == 0, result.stderr
    assert [line for line in result.stdout.splitlines() if line.startswith("===")][:2] == [
        "=== benchmark",
        "=== engine",
    ]
    assert "tools/benchmark.py --device cuda" in result.stdout


def test_unknown_parts_and_a_machine_without_a_gpu_are_refused(tmp_path: Path) -> None:
    assert run(tmp_path, "--only", "golden,speed").returncode == 2
    assert run(tmp_path, "--fast").returncode == 2
    assert run(tmp_path, has_gpu=False).returncode == 2
