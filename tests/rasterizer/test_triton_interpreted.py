"""Runs the tests of the Triton kernels on the CPU, in Triton's interpreter, where there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels' tests run on the GPU")
def test_kernels_in_the_interpreter() -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/rasterizer", "-k", "triton"]
    ignored = ["--ignore", "tests/rasterizer/test_triton_interpreted.py"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}  # Triton reads it when it is imported
    result = subprocess.run(
        [*command, *ignored], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-1000:]
    assert " passed" in result.stdout
