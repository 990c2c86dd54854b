"""Arrays that are computed once and then kept in files, which are named after what they were computed from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.io.array import read_array, write_array


def kept_array(folder: Path, name: str, source: np.ndarray, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """`compute()`, or what it made of the same `source` before; `name` tells what it is, a change of it included.

    A file that is missing or broken is made again, and a folder that cannot be written to only costs time.
    """
    of_what = f"{source.dtype.str} {source.shape}".encode() + np.ascontiguousarray(source).tobytes()
    path = folder / f"{name}_{hashlib.sha256(of_what).hexdigest()[:24]}.npy"
    with suppress(UserError, OSError):
        if path.is_file():
            return read_array(path)
    array = compute()
    with suppress(UserError):
        write_array(path, array)
    return array
