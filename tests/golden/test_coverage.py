"""Every golden array is an input or compared with by a named test (coverage.py)."""

from __future__ import annotations

import importlib
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from tests.golden.conftest import GOLDEN_DIR
from tests.golden.coverage import CHECKED, INPUTS


def places(folder: Path) -> list[str]:
    """All files of a golden directory; of an .npz its arrays, as file:array."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix != ".npz" or name.startswith("assets/"):
            found.append(name)
            continue
        with np.load(path, allow_pickle=False) as arrays:
            found += [f"{name}:{array}" for array in arrays.files]
    return found


def test_every_array_has_a_row(selection):
    patterns = (*INPUTS, *CHECKED)
    known = [*places(GOLDEN_DIR), *selection.same_as]
    assert known
    assert [place for place in known if not any(fnmatchcase(place, row) for row in patterns)] == []


def test_every_named_test_exists():
    for names in CHECKED.values():
        for name in names:
            module, function = name.split("::")
            assert callable(getattr(importlib.import_module(f"tests.golden.{module}"), function)), name
