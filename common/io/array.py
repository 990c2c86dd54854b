"""Numpy .npy files: reading with checks, writing."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError

import numpy as np

from common.errors import UserError
from common.io.atomic import atomic_path

_MAGIC = b"\x93NUMPY"
_BROKEN = (
    ValueError, TypeError, EOFError, OSError, SyntaxError, TokenError, OverflowError, MemoryError, RecursionError,
)  # fmt: skip


def open_array(path: Path, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Map a .npy file of numbers or booleans; only its header is read, and its length is checked against it.

    UserError if it is missing, truncated, not a plain array, or not of `shape`.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise UserError(f"{path} is not a .npy file; write it with numpy.save")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"missing file: {path}; put it there") from None
    except _BROKEN as error:
        raise UserError(f"{path} is truncated or not a plain .npy array ({error}); write it again") from error
    if array.dtype.kind not in "biuf":
        raise UserError(f"{path} holds {array.dtype} values, expected numbers; write it again")
    if shape is not None and array.shape != shape:
        raise UserError(f"{path} has shape {array.shape}, expected {shape}; write it again")
    return array


def read_array(path: Path, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Read a .npy file of numbers or booleans; errors as `open_array`."""
    return np.array(open_array(path, shape))


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file under its final name only when it is complete."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
