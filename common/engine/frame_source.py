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
from common.pose import SmplxParams

CHUNK = 16  # frames whose poses are computed in one go
N_READERS = 4


@dataclass(frozen=True)
class Shot:
    """One frame to draw."""

    params: SmplxParams  # in the space of `camera`
    camera: Camera
    background: Callable[[], np.ndarray] | None = None  # reads an image (H, W, 3) uint8 of the render size


@dataclass(frozen=True)
class PackedShot:
    """A frame as the drawing takes it, on the CPU."""

    row: Tensor  # (ROW_SIZE,)
    background: Tensor | None  # (H, W, 3) uint8


def packed(shots: Iterable[Shot], rows: PoseRows, is_pinned: bool) -> Iterator[PackedShot]:
    """The shots in order; the next chunk's poses and backgrounds are prepared while this one is used."""
    remaining = iter(shots)
    with ThreadPoolExecutor(N_READERS) as readers:
        upcoming: deque[tuple[Future[Tensor], list[Future[Tensor] | None]]] = deque()
        while True:
            while len(upcoming) < 2 and (chunk := list(islice(remaining, CHUNK))):
                packing = readers.submit(_pack, rows, chunk, is_pinned)
                backgrounds = [
                    None if shot.background is None else readers.submit(_read, shot.background, is_pinned)
                    for shot in chunk
                ]
                upcoming.append((packing, backgrounds))
            if not upcoming:
                return
            packing, backgrounds = upcoming.popleft()
            for row, background in zip(packing.result(), backgrounds, strict=True):
                yield PackedShot(row, None if background is None else background.result())


def _pack(rows: PoseRows, shots: list[Shot], is_pinned: bool) -> Tensor:
    packed_rows = rows.pack([shot.params for shot in shots], [shot.camera for shot in shots])
    return packed_rows.pin_memory() if is_pinned else packed_rows


def _read(background: Callable[[], np.ndarray], is_pinned: bool) -> Tensor:
    image = torch.from_numpy(background())
    return image.pin_memory() if is_pinned else image
