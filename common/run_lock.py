"""One training at a time in a folder: a lock that tells who holds it and gives way when its holder has died."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from common.errors import UserError

LOCK_NAME = ".training.lock"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock, as it is written into the lock file."""

    pid: int
    host: str
    boot_id: str  # of the kernel; another one: the machine was restarted since ("" where unknown)
    # Start of the process since boot; tells it from a later one with the same pid (-1: unknown).
    started_ticks: int
    since: str  # when the lock was taken, for people

    @classmethod
    def this_process(cls) -> Owner:
        """The running process."""
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        return cls(os.getpid(), socket.gethostname(), _boot_id(), _started_ticks(os.getpid()), since)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"

    def reason_gone(self) -> str | None:
        """Why this owner no longer runs, or None if it does or nobody can tell from here."""
        if self.host != socket.gethostname():
            return None
        if self.boot_id != _boot_id():
            return "the machine was restarted"
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return "that process has ended"
        except PermissionError:  # it runs, as another user
            return None
        if self.started_ticks != _started_ticks(self.pid):
            return "that process has ended"
        return None


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for one training; it is made if it is missing, and removed again if it stays empty.

    The kernel's file lock (flock) decides between processes of one machine, those in containers included, so there
    is no race and a killed holder leaves nothing to clean up; what is written in the file is for people, for file
    systems without flock and for other machines. UserError names the holder's process and host.
    """
    path, made = folder / LOCK_NAME, _missing_folders(folder)
    try:
        handle = _acquire(path)
    except OSError as error:
        _remove_empty(made)
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path}: {reason}; choose another --paths.output") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock is let go: nobody else can hold the name now
        os.close(handle)
        _remove_empty(made)


def _acquire(path: Path) -> int:
    """An open, locked lock file that has the name `path` and holds this process's record."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # another process has just removed the empty folder
            continue
        try:
            is_locked = _lock(handle, path)
            if not _is_named(handle, path):  # its holder removed it between our opening and locking it
                os.close(handle)
                continue
            _check_record(handle, path, is_locked)
            content = json.dumps(asdict(Owner.this_process())).encode()
            os.ftruncate(handle, 0)
            os.pwrite(handle, content, 0)
        except BaseException:
            os.close(handle)
            raise
        return handle


def _lock(handle: int, path: Path) -> bool:
    """Whether the kernel's lock is ours now, not only that nobody else's was in the way."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _refusal(_read(handle), path) from None
    except OSError as error:
        logger.warning("%s: no file locks here (%s); its record alone decides", path, error.strerror)
        return False
    return True


def _check_record(handle: int, path: Path, is_locked: bool) -> None:
    """Refuse while the record's process runs or may run; a stale record is announced."""
    owner = _read(handle)
    if owner is None:
        return
    reason = owner.reason_gone()
    if reason is None and is_locked and owner.boot_id and owner.boot_id == _boot_id():
        reason = "it has let go of its file lock"  # containers have hosts of their own, but the same kernel
    if reason is None:
        raise _refusal(owner, path)
    logger.info("taking over the lock of %s: %s", owner, reason)


def _refusal(owner: Owner | None, path: Path) -> UserError:
    text = f"{path.parent} is in use by another training ({owner or 'it has only just started'})"
    if owner is not None and owner.host != socket.gethostname():
        return UserError(f"{text}; if it no longer runs, remove {path}")
    return UserError(f"{text}; wait for it or end it")


def _read(handle: int) -> Owner | None:
    """The record in a lock file; None if it is empty or half written."""
    try:
        values: dict[str, Any] = json.loads(os.pread(handle, 4096, 0))
        return Owner(**values)
    except (ValueError, TypeError):
        return None


def _is_named(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # not Linux
        return ""


def _started_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[19])  # starttime, the 22nd field; the name before it may hold spaces
    except (OSError, IndexError, ValueError):
        return -1


def _missing_folders(folder: Path) -> list[Path]:
    """Those of `folder` and its parents that do not exist, innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:  # not empty, or gone already
            return
