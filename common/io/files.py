"""Opening files that may be anything: missing, folders, pipes, or links to somewhere else."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from common.errors import UserError

FRAME_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")  # as in file names: no leading zeros


def open_file(path: Path) -> BinaryIO:
    """Open a file for reading; UserError if it is missing or no regular file (opening a pipe would wait)."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"cannot read {path}: it is a folder, a pipe or a device; put a file there")
        return path.open("rb")
    except FileNotFoundError:
        raise UserError(f"missing file: {path}; put it there") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}: {reason}; check the file and its folder") from error


def inside(root: Path, path: Path) -> Path:
    """`path`, unless links in it lead out of the folder `root`: UserError. `root` itself may be a link."""
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(root)):
        raise UserError(f"{path} is a link that leads out of {root}, to {real}; put the file itself there")
    return path
