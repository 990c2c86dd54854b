"""A kept array is computed once for each source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.io.kept_array import kept_array

SOURCE = np.arange(12, dtype=np.float32).reshape(4, 3)


class Computing:
    """Counts how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> np.ndarray:
        self.calls += 1
        return np.full((4, 1), self.calls, np.float32)


def test_the_second_time_it_is_read(tmp_path: Path) -> None:
    compute = Computing()
    first, second = (kept_array(tmp_path / "new", "twice", SOURCE.copy(), compute) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert compute.calls == 1 and second.dtype == np.float32


@pytest.mark.parametrize("other", [SOURCE + 1e-6, SOURCE.T, SOURCE.astype(np.float64), SOURCE.reshape(3, 4)])
def test_another_source_or_name_is_computed(tmp_path: Path, other: np.ndarray) -> None:
    compute = Computing()
    kept_array(tmp_path, "one", SOURCE, compute)
    kept_array(tmp_path, "one", other, compute)
    kept_array(tmp_path, "two", SOURCE, compute)
    assert compute.calls == 3


@pytest.mark.parametrize("content", [b"", b"no array"])
def test_a_broken_file_is_made_again(tmp_path: Path, content: bytes) -> None:
    compute = Computing()
    kept_array(tmp_path, "one", SOURCE, compute)
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    for _ in range(2):
        np.testing.assert_array_equal(kept_array(tmp_path, "one", SOURCE, compute), np.full((4, 1), 2))
    assert compute.calls == 2


def test_a_folder_that_cannot_be_made_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    compute = Computing()
    for _ in range(2):
        kept_array(tmp_path / "file" / "folder", "one", SOURCE, compute)
    assert compute.calls == 2
