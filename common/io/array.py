"""Numpy .npy files: reading with checks, writing."""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np

from common.errors import UserError
from common.io.atomic import atomic_path
from common.io.files import open_file

NUMBERS = "biuf"  # kinds of numpy's types
TEXT = "US"
_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 4096  # bytes; that of an array of numbers takes about a hundred
_OBJECTS = ("|O", "O")
_DTYPE = re.compile(r"[<>=|]?[biufUS][0-9]{1,9}|[<>=|]?\?")
_BROKEN = (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError, OSError)


@dataclass(frozen=True)
class ArrayHeader:
    """What the header of a .npy file declares."""

    dtype: np.dtype
    shape: tuple[int, ...]
    is_fortran: bool  # first axis is the fastest

    @property
    def n_bytes(self) -> int:
        """Size of the values; exact, however large."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes], kinds: str = NUMBERS) -> ArrayHeader:
    """The header of a .npy file at its start; ValueError and its like if it is broken or not of `kinds`.

    Nothing that the header declares is allocated. Object and structured arrays are refused.
    """
    start = file.read(len(_MAGIC) + 2)
    if not start.startswith(_MAGIC):
        raise ValueError("it does not begin like one; write it with numpy.save")
    length = int.from_bytes(file.read(2 if start[-2:-1] == b"\x01" else 4), "little")
    if length > _MAX_HEADER:
        raise ValueError(f"a header of {length} bytes")
    text = file.read(length)
    if len(text) < length:
        raise ValueError("the header is cut off")
    header = ast.literal_eval(text.decode("utf-8").strip())
    code, shape, is_fortran = header["descr"], header["shape"], header["fortran_order"]
    if code in _OBJECTS:
        raise ValueError("holds Python objects, which are never read because reading them can run code")
    if not (isinstance(code, str) and _DTYPE.fullmatch(code)):
        raise ValueError(f"holds elements of type {str(code)[:40]!r}, expected numbers")
    dtype = np.dtype(code)
    if dtype.kind not in kinds or not dtype.itemsize or (dtype.kind in NUMBERS and dtype.itemsize > 8):
        raise ValueError(f"holds {dtype} values, expected numbers")
    if not (isinstance(shape, tuple) and all(type(n) is int and 0 <= n < 2**48 for n in shape)):
        raise ValueError(f"shape {str(shape)[:40]}")
    if len(shape) > 8 or type(is_fortran) is not bool:
        raise ValueError("an unusual header")
    return ArrayHeader(dtype, shape, is_fortran)


def open_array(path: Path, shape: tuple[int, ...] | None = None, mode: Literal["r", "c"] = "r") -> np.ndarray:
    """Map a .npy file of numbers or booleans; only its header is read, and its length is checked against it.

    Mode "r" is read-only, "c" copies what is written to. UserError if it is missing, truncated, not a plain
    array, or not of `shape`.
    """
    with open_file(path) as file:
        try:
            header = read_header(file)
            offset, size = file.tell(), file.seek(0, 2)
            if size != offset + header.n_bytes:
                raise ValueError(f"{size - offset} bytes of values, its header says {header.n_bytes}")
        except _BROKEN as error:
            raise UserError(
                f"{path} is truncated or not a plain .npy array ({error}); write it again"
            ) from error
        if shape is not None and header.shape != shape:
            raise UserError(f"{path} has shape {header.shape}, expected {shape}; write it again")
        order: Literal["F", "C"] = "F" if header.is_fortran else "C"
        try:
            if not header.n_bytes:  # an empty part of a file cannot be mapped
                return np.empty(header.shape, header.dtype, order)
            return np.memmap(path, header.dtype, mode, offset, header.shape, order)
        except _BROKEN as error:
            raise UserError(f"cannot read {path}: {error}") from error


def read_array(path: Path, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Read a .npy file of numbers or booleans, in this machine's byte order; errors as `open_array`."""
    array = open_array(path, shape)
    return np.array(array, array.dtype.newbyteorder("="))


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file under its final name only when it is complete."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
