"""Arrays that are computed once and then kept in files, which are named after what they were computed from."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.io.array import read_array, write_array


def kept_array(
    folder: Path,
    name: str,
    source: np.ndarray | str,
    compute: Callable[[], np.ndarray],
    is_only: bool = False,
) -> np.ndarray:
    """`compute()`, or what it made of the same `source` before; `name` tells what it is, a change of it included.

    A file that is missing or broken is made again, and a folder that cannot be written to only costs time.
    is_only: what was made of other sources, under this name in this folder, is not needed any more.
    """
    path = folder / f"{name}_{hashlib.sha256(_bytes(source)).hexdigest()[:24]}.npy"
    with suppress(UserError, OSError):
        if path.is_file():
            return read_array(path)
    array = compute()
    with suppress(UserError, OSError):
        if is_only:
            for other in folder.glob(f"{glob.escape(name)}_{'[0-9a-f]' * 24}.npy"):
                other.unlink()
        write_array(path, array)
    return array


def _bytes(source: np.ndarray | str) -> bytes:
    if isinstance(source, str):
        return source.encode()
    return f"{source.dtype.str} {source.shape}".encode() + np.ascontiguousarray(source).tobytes()
