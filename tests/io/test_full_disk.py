"""Every writer ends in one clear error when the disk is full, and leaves no half file."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from common.checkpoint import Snapshot, save_snapshot
from common.errors import UserError
from common.io.array import write_array
from common.io.image import write_image
from common.io.json import write_json
from common.io.ply import write_mesh
from common.io.video import VideoWriter

NOISE = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)
LIMIT_BYTES = 10_000


def _write_video(path: Path) -> None:
    with VideoWriter(path, fps=30) as video:
        for shift in range(8):
            video.write(np.roll(NOISE, shift * 17, axis=0))


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.png": lambda path: write_image(path, NOISE),
    "a.npy": lambda path: write_array(path, NOISE),
    "a.json": lambda path: write_json(path, NOISE),
    "a.ply": lambda path: write_mesh(
        path, NOISE.reshape(-1, 3).astype(np.float32), np.zeros((9, 3), dtype=int)
    ),
    "a.mp4": _write_video,
    "snapshot_0.pth": lambda path: save_snapshot(path, Snapshot(0, {"a": torch.rand(100, 100)}, None)),
}


@contextmanager
def _small_files() -> Iterator[None]:
    """No file can grow over LIMIT_BYTES: to a program the same as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", WRITERS)
def test_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path, name):
    with _small_files(), pytest.raises(UserError, match=f"cannot write .*{name}"):
        WRITERS[name](tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_writers_work_with_room(tmp_path, name):
    WRITERS[name](tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).stat().st_size > LIMIT_BYTES
