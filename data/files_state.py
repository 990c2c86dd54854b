"""Whether files are still as they were, told without reading them."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

NEW_NS = 2 * 10**9  # file systems tell times in steps of up to two seconds


def files_state(places: Sequence[Path]) -> str | None:
    """A digest of names, sizes and times of files, and of all files in folders, deep down.

    Times are those of the last write and of the last change, which the system sets whatever a program does. None
    where that tells too little: there are links, a folder cannot be looked into, or a file is so new that it may
    change once more at the same time.
    """
    try:
        lines = sorted(line for place in places for line in _lines(place))
    except (_UntoldError, OSError):
        return None
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


class _UntoldError(Exception):
    """A file may change and look the same: a link to something that does, or a new one."""


def _lines(place: Path) -> Iterator[str]:
    status = place.lstat()
    folders = [str(place)] if stat.S_ISDIR(status.st_mode) else []
    if not folders:
        yield _line(str(place), status)
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    yield _line(entry.path, entry.stat(follow_symlinks=False))


def _line(path: str, status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode) or time.time_ns() - status.st_ctime_ns < NEW_NS:
        raise _UntoldError
    return f"{path} {status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
