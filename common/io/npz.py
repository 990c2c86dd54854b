"""Numpy .npz archives: sizes are checked before anything is inflated, pickles are never read."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from common.errors import UserError
from common.io.array import NUMBERS, TEXT, ArrayHeader, read_header
from common.io.files import open_file

_MAX_DIRECTORY = 2**20  # bytes: thousands of arrays
_FREE_BYTES = 2**25  # any archive may inflate to this
_MAX_RATIO = 100  # and else to so many times its size; model files are under 10
_BLOCK = 2**20
_BROKEN = (
    ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError, OSError, EOFError,
    NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip


def npz_names(path: Path) -> tuple[str, ...]:
    """Names of the arrays in an .npz; UserError if it is none."""
    with _opened(path) as (_, archive):
        return tuple(name.removesuffix(".npy") for name in archive.namelist())


def npz_shapes(path: Path, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of those of the named arrays that an .npz has, by their headers alone; UserError if it is broken."""
    with _opened(path) as (_, archive):
        shapes = {}
        for name, info in _members(archive, (), names).items():
            with archive.open(info) as member:
                shapes[name] = read_header(member, NUMBERS + TEXT).shape
        return shapes


def read_npz(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Arrays of numbers or text of an .npz by their names; those in `optional` may be missing.

    Other arrays are not looked at. UserError if the file is broken, lacks one of `names`, declares sizes that its
    content does not have, or is a zip bomb (inflates to over 32 MiB and over a hundred times its size; each number
    counts as 8 bytes, because that is what it becomes in computations).
    """
    with _opened(path) as (size, archive):
        members = _members(archive, names, optional)
        headers = {name: _header(archive, info) for name, info in members.items()}
        total = sum(max(header.n_bytes, 8 * math.prod(header.shape)) for header in headers.values())
        if total > max(_FREE_BYTES, _MAX_RATIO * size):
            raise ValueError(f"its {size} bytes inflate to {total}: more than any such file needs")
        return {name: _values(archive, info, headers[name]) for name, info in members.items()}


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, zipfile.ZipFile]]:
    """An archive and its size; what goes wrong with it in the block is a UserError."""
    with open_file(path) as file:
        try:
            size = _check_directory(file)
            with zipfile.ZipFile(file) as archive:
                yield size, archive
        except _BROKEN as error:
            reason = str(error) or type(error).__name__
            raise UserError(
                f"{path} is not a readable .npz file ({reason}); download or make it again"
            ) from error


def _check_directory(file: BinaryIO) -> int:
    """The file's size; ValueError unless its table of contents is of a usual size."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 2**16 - 22))
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or int.from_bytes(tail[end + 12 : end + 16], "little") > _MAX_DIRECTORY:
        raise ValueError("no table of contents, or a huge one")
    if tail[max(0, end - 20) : end].startswith(b"PK\x06\x07"):  # zipfile would believe this other end instead
        raise ValueError("a zip64 archive, which only files over 4 GiB need")
    return size


def _members(
    archive: zipfile.ZipFile, names: Sequence[str], optional: Sequence[str]
) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    wanted = {f"{name}.npy": name for name in (*names, *optional)}
    found = {wanted[info.filename]: info for info in infos if info.filename in wanted}
    missing = [name for name in names if name not in found]
    if missing:
        raise KeyError(f"it has no {', '.join(missing)}")
    if len(found) < sum(info.filename in wanted for info in infos):
        raise ValueError("it holds an array twice")
    if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in found.values()):
        raise ValueError("an unusual compression")
    return found


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArrayHeader:
    with archive.open(info) as member:
        header = read_header(member, NUMBERS + TEXT)
        n_bytes = info.file_size - member.tell()
    if n_bytes != header.n_bytes:
        raise ValueError(f"{info.filename} has {n_bytes} bytes of values, its header says {header.n_bytes}")
    return header


def _values(archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: ArrayHeader) -> np.ndarray:
    """The array, read block by block; a wrong length or checksum raises."""
    array = np.empty(header.shape, header.dtype, "F" if header.is_fortran else "C")
    view = array.reshape(-1, order="A").view(np.uint8) if array.size else np.empty(0, np.uint8)
    with archive.open(info) as member:
        read_header(member, NUMBERS + TEXT)
        position = 0
        while block := member.read(_BLOCK):
            view[position : position + len(block)] = np.frombuffer(block, np.uint8)
            position += len(block)
    if position != len(view):
        raise EOFError(f"{info.filename} is cut off")
    return array.astype(header.dtype.newbyteorder("="), copy=False)
