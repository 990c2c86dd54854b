"""Whether files are still as they were, told without reading them."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

NEW_NS = 2 * 10**9  # file systems tell times in steps of up to two seconds


def files_state(places: Sequence[Path], suffix: str = "") -> str | None:
    """A digest of names, sizes and times of files, and of those deep in folders whose names end with `suffix`.

    Times are those of the last write and of the last change, which the system sets whatever a program does. None
    where that tells too little: there are links, a folder cannot be looked into, or a file is so new that it may
    change once more at the same time.
    """
    try:
        lines = sorted(line for place in places for line in _lines_of(place, suffix))
    except (_UntoldError, OSError):
        return None
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


class _UntoldError(Exception):
    """A file may change and look the same: a link to something that does, or a new one."""


def _lines_of(place: Path, suffix: str) -> Iterator[str]:
    if place.is_symlink():
        raise _UntoldError
    yield from _lines(str(place), suffix) if place.is_dir() else [_line(str(place), place.stat())]


def _line(path: str, of: os.stat_result) -> str:
    if time.time_ns() - of.st_ctime_ns < NEW_NS:
        raise _UntoldError
    return f"{path} {of.st_ino} {of.st_size} {of.st_mtime_ns} {of.st_ctime_ns}"


def _lines(folder: str, suffix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                raise _UntoldError
            if entry.is_dir(follow_symlinks=False):
                yield from _lines(entry.path, suffix)
            elif entry.name.endswith(suffix):
                yield _line(entry.path, entry.stat(follow_symlinks=False))
