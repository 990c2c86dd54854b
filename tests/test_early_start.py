"""What commands begin around their imports, and in threads, changes nothing but the time that it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common import early_start
from common.gpu import preparation
from common.run_state import THREADS_BESIDE_GPU, use_few_threads

ROOT = Path(__file__).resolve().parents[1]
COLLECTING = """
import gc
from common import early_start
early_start.begin()
assert not gc.isenabled()
early_start.imported()
assert gc.isenabled() and gc.get_freeze_count() > 1000
"""
WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
import torch
from common.gpu import preparation
assert preparation.begin(torch.device("cpu")).result() is False
"""


def test_garbage_is_collected_again_after_the_imports() -> None:
    subprocess.run([sys.executable, "-c", COLLECTING], cwd=ROOT, check=True)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Filled when Triton is asked for its hash."""
    asked: list[str] = []
    cache = SimpleNamespace(triton_key=lambda: asked.append("key"))
    monkeypatch.setitem(sys.modules, "triton", SimpleNamespace(runtime=SimpleNamespace(cache=cache)))
    monkeypatch.setitem(sys.modules, "triton.runtime", SimpleNamespace(cache=cache))
    monkeypatch.setitem(sys.modules, "triton.runtime.cache", cache)
    return asked


@pytest.mark.parametrize(("result", "expected"), [(0, ["key"]), (100, [])])  # 100: no device
def test_triton_begins_early_where_a_driver_has_a_device(
    monkeypatch: pytest.MonkeyPatch, hashed: list[str], result: int, expected: list[str]
) -> None:
    monkeypatch.setattr(early_start.ctypes, "CDLL", lambda name: SimpleNamespace(cuInit=lambda flags: result))
    early_start._begin_for_gpu()
    assert hashed == expected


def test_nothing_begins_without_a_driver(monkeypatch: pytest.MonkeyPatch, hashed: list[str]) -> None:
    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(early_start.ctypes, "CDLL", missing)
    early_start._begin_for_gpu()
    assert hashed == []


def test_every_function_that_is_used_once_to_load_it_exists() -> None:
    preparation._load_kernels(torch.device("cpu"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--subject_id", "S"], True),
        (["--device", "cuda"], True),
        (["--device", "cpu"], False),
        (["--device=cpu"], False),
        (["--subject_id", "S", "--deterministic"], False),
        (["--help"], False),
    ],
)
def test_kernels_are_loaded_early_only_where_the_options_let_them(
    monkeypatch: pytest.MonkeyPatch, hashed: list[str], words: list[str], expected: bool
) -> None:
    begun: list[str] = []
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    monkeypatch.setattr(early_start.ctypes, "CDLL", lambda name: SimpleNamespace(cuInit=lambda flags: 0))
    monkeypatch.setattr(preparation, "begin_loading", lambda device: begun.append(device.type))
    monkeypatch.setattr(early_start.Thread, "start", early_start.Thread.run)
    monkeypatch.setattr(early_start.gc, "disable", lambda: None)
    early_start.begin(loads_kernels=True)
    assert begun == (["cuda"] if expected else []) and hashed == ["key"]


def test_without_triton_a_warning_says_that_steps_are_plain() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TRITON], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ModuleNotFoundError" in done.stderr and "plain ones are used" in done.stderr


def test_few_threads_are_used_beside_a_gpu_and_no_more_than_before() -> None:
    before = torch.get_num_threads()
    try:
        for n, expected in ((THREADS_BESIDE_GPU + 2, THREADS_BESIDE_GPU), (1, 1)):
            torch.set_num_threads(n)
            use_few_threads()
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)
