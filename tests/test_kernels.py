"""Kernels touch the disk only when they first run, and run where nothing can be written."""

from __future__ import annotations

import sys

import pytest

from common import kernels

SOURCE = """
from common.kernels import kernel

@kernel(error_model="numpy")
def twice(x):
    return 2 * x
"""


@pytest.fixture
def twice(tmp_path, monkeypatch):
    """A kernel in a module of its own, not yet compiled."""
    monkeypatch.setattr(kernels, "_unopened", [])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "some_kernels.py").write_text(SOURCE)
    monkeypatch.delitem(sys.modules, "some_kernels", raising=False)
    from some_kernels import twice

    assert [path.name for path in tmp_path.iterdir()] == ["some_kernels.py"]
    return twice


def test_compiled_code_is_kept_beside_the_source(twice, tmp_path):
    kernels.open_caches()
    assert twice(21.0) == 42.0
    assert list((tmp_path / "__pycache__").glob("some_kernels.twice-*.nbc"))


def test_kernels_run_without_a_cache(twice, tmp_path, monkeypatch):
    def fail() -> None:
        raise RuntimeError("cannot cache function 'twice': no locator available")

    monkeypatch.setattr(twice, "enable_caching", fail)
    kernels.open_caches()
    assert twice(21.0) == 42.0
    assert not (tmp_path / "__pycache__").exists()
