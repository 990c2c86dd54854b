"""Where the golden arrays are, and what the golden tests share: GOLDEN_DIR, else the selection beside these tests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
import torch

from common.body_model.body import BodyModel
from common.skinning_field import SkinningField
from tests.golden import scene

GOLDEN_DIR = Path(os.environ.get("GOLDEN_DIR", Path(__file__).parent / "arrays"))


class Selection:
    """What `select_arrays.py` left out of a directory or stored in one place only; a full one has no such file."""

    def __init__(self, folder: Path) -> None:
        file = folder / "selection.json"
        content = json.loads(file.read_text()) if file.exists() else {"left_out": {}, "same_as": {}}
        self.left_out: dict[str, str] = content["left_out"]
        self.same_as: dict[str, str] = content["same_as"]

    def reason(self, place: str) -> str | None:
        """Why a file, or an array as file:array, was left out; None if it was not."""
        fitting = (reason for pattern, reason in self.left_out.items() if fnmatchcase(place, pattern))
        return next(fitting, None)


class Arrays(dict[str, np.ndarray]):
    """The arrays of one golden file; a test that asks for one that was left out is skipped."""

    def __init__(self, file: str, selection: Selection) -> None:
        with np.load(GOLDEN_DIR / file, allow_pickle=False) as stored:
            super().__init__(stored)
        for place, elsewhere in selection.same_as.items():
            if place.startswith(f"{file}:"):
                self[place.removeprefix(f"{file}:")] = _read(elsewhere)
        self.file = file
        self.selection = selection

    def __missing__(self, name: str) -> np.ndarray:
        reason = self.selection.reason(f"{self.file}:{name}")
        if reason is None:
            raise KeyError(name)
        pytest.skip(f"{self.file}:{name} is left out of the selection: {reason}")


def _read(place: str) -> np.ndarray:
    file, name = place.split(":")
    with np.load(GOLDEN_DIR / file, allow_pickle=False) as stored:
        return stored[name]


@pytest.fixture(scope="session", autouse=True)
def chosen_device() -> Iterator[None]:
    """The device of all golden tests: TEST_DEVICE, else the CPU."""
    if os.environ.get("TEST_DEVICE", "cpu") == "cpu":
        yield
        return
    from tests.golden.on_cuda import on_cuda

    with on_cuda():
        yield


@pytest.fixture(scope="session")
def selection() -> Selection:
    """What the chosen directory lacks."""
    return Selection(GOLDEN_DIR)


@pytest.fixture(scope="session")
def golden_path(selection: Selection) -> Callable[[str], Path]:
    """Path of a golden file by its name; the test is skipped if the chosen directory does not have it."""

    def locate(name: str) -> Path:
        path = GOLDEN_DIR / name
        if not path.exists():
            reason = selection.reason(name)
            why = f"left out of the selection: {reason}" if reason else f"not in {GOLDEN_DIR}"
            pytest.skip(f"{name} is {why}")
        return path

    return locate


@pytest.fixture(scope="session")
def golden(golden_path: Callable[[str], Path], selection: Selection) -> Callable[[str], Arrays]:
    """All arrays of a golden .npz by its name."""

    def load(name: str) -> Arrays:
        golden_path(name)
        return Arrays(name, selection)

    return load


@pytest.fixture(scope="session", params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """The precision a test computes in; the stored arrays are float32, so tolerances are the same for both."""
    return request.param


@pytest.fixture(scope="session")
def golden_body(golden: scene.Golden, golden_path: scene.GoldenPath) -> BodyModel:
    """The golden body, subdivided twice, with the stored neighbour lists; not to be changed."""
    return scene.load_body(golden, golden_path)


@pytest.fixture(scope="session")
def golden_field(golden: scene.Golden) -> SkinningField:
    """The skinning field behind the golden avatar; not to be changed."""
    return scene.load_field(golden)
