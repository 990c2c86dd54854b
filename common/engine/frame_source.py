"""What the engine is asked to show, read and packed ahead of the drawing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from common.camera import Camera
from common.engine.pose_rows import PoseRows
from common.frame_label import digits_of
from common.pose import SmplxParams

CHUNK = 64  # frames whose poses are computed in one go
BACKGROUNDS_AHEAD = 32
N_READERS = 8


@dataclass(frozen=True)
class Shot:
    """One frame to draw."""

    params: SmplxParams  # in the space of `camera`
    camera: Camera
    background: Callable[[], np.ndarray] | None = None  # reads an image (H, W, 3) uint8 of the render size
    number: int | None = None  # drawn in the upper left corner


@dataclass(frozen=True)
class PackedShot:
    """A frame as the drawing takes it, on the CPU."""

    row: Tensor  # (ROW_SIZE + N_DIGITS,) the pose, then `common.frame_label.digits_of` the number
    number: int | None
    background: Tensor | None  # (H, W, 3) uint8


def packed(shots: Iterable[Shot], rows: PoseRows, is_pinned: bool) -> Iterator[PackedShot]:
    """The shots in order; the next poses and backgrounds are prepared while these are used."""
    with ThreadPoolExecutor(N_READERS) as readers:
        upcoming: deque[tuple[Tensor, int | None, Future[Tensor] | None]] = deque()
        for shot, row in _with_rows(shots, rows, is_pinned, readers):
            background = shot.background
            reading = None if background is None else readers.submit(_read, background, is_pinned)
            upcoming.append((row, shot.number, reading))
            if len(upcoming) > BACKGROUNDS_AHEAD:
                yield _ready(*upcoming.popleft())
        while upcoming:
            yield _ready(*upcoming.popleft())


def _with_rows(
    shots: Iterable[Shot], rows: PoseRows, is_pinned: bool, readers: ThreadPoolExecutor
) -> Iterator[tuple[Shot, Tensor]]:
    remaining = iter(shots)
    upcoming: deque[tuple[list[Shot], Future[Tensor]]] = deque()
    while True:
        while len(upcoming) < 2 and (chunk := list(islice(remaining, CHUNK))):
            upcoming.append((chunk, readers.submit(_pack, rows, chunk, is_pinned)))
        if not upcoming:
            return
        chunk, packing = upcoming.popleft()
        yield from zip(chunk, packing.result(), strict=True)


def _ready(row: Tensor, number: int | None, reading: Future[Tensor] | None) -> PackedShot:
    return PackedShot(row, number, None if reading is None else reading.result())


def _pack(rows: PoseRows, shots: list[Shot], is_pinned: bool) -> Tensor:
    poses = rows.pack([shot.params for shot in shots], [shot.camera for shot in shots])
    packed_rows = torch.cat([poses, torch.tensor([digits_of(shot.number) for shot in shots])], dim=1)
    return packed_rows.pin_memory() if is_pinned else packed_rows


def _read(background: Callable[[], np.ndarray], is_pinned: bool) -> Tensor:
    image = torch.from_numpy(background())
    return image.pin_memory() if is_pinned else image
