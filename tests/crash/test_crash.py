"""Training survives kills: the crash test with a few of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_training_that_is_killed_again_and_again_ends_in_the_very_same_bits(tmp_path):
    command = [sys.executable, str(ROOT / "tests/crash/run.py"), "--kills", "5", "--output", str(tmp_path)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "| kills | 5 |" in done.stdout
    assert "| runs with the very same end | 0 |" not in done.stdout
