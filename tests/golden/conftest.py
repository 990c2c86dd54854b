"""Where the golden arrays are: GOLDEN_DIR, else the selection kept beside these tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

GOLDEN_DIR = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parent / "arrays"))


@pytest.fixture(scope="session")
def golden_path() -> Callable[[str], Path]:
    """Path of a golden file by its name; the test is skipped if the chosen set does not have it."""

    def locate(name: str) -> Path:
        path = GOLDEN_DIR / name
        if not path.exists():
            pytest.skip(f"{name} is not in {GOLDEN_DIR}")
        return path

    return locate


@pytest.fixture(scope="session")
def golden(golden_path: Callable[[str], Path]) -> Callable[[str], dict[str, np.ndarray]]:
    """All arrays of a golden .npz by its name."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(golden_path(name), allow_pickle=False) as arrays:
            return dict(arrays)

    return load
