"""Writing files so that a killed or failed program, or a power cut, leaves no half file under a final name."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError

_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)  # of file systems that cannot wait for the disk


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary sibling of `path` to write to; it gets the final name when the block ends without an error and what
    was written is on the disk.

    Missing folders are made. The temporary name keeps the suffix, so that writers can tell the format by it.
    An operating system error (disk full, read-only folder) becomes a UserError that names `path`.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)  # of a killed run, or a link that somebody put there to be written through
        yield temporary
        _to_disk(temporary)
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or f"not all of it was written ({error})"  # numpy's error has numbers only
        raise UserError(f"cannot write {path}: {reason}; free space or choose another folder") from error
    finally:
        _remove(temporary)


def _to_disk(path: Path) -> None:
    """Wait until the disk has a file: else a power cut could leave its name with nothing in it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # the folder could not be made or is gone: nothing was left behind
        return
