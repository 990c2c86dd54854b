"""A video that is encoded while its next frames are made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from common.io.video import VideoWriter, to_yuv420

N_PREPARING = 4  # threads that prepare and convert frames
MAX_WAITING = 32  # frames handed over and not encoded yet


class VideoQueue:
    """`VideoWriter` in threads: `with VideoQueue(path, fps, prepare) as video: video.put(frame, number)`.

    `prepare(frame, number)` makes the final picture (H, W, 3) uint8; it and the conversion run in a few threads,
    encoding in one, in order. `put` waits while too many frames are queued; an error of a thread is raised by
    a later `put` or at the end of the block.
    """

    def __init__(self, path: Path, fps: int, prepare: Callable[[np.ndarray, int], np.ndarray]) -> None:
        self._writer = VideoWriter(path, fps)
        self._prepare = prepare
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> VideoQueue:
        self._writer.__enter__()
        self._preparing = ThreadPoolExecutor(N_PREPARING)
        self._encoding = ThreadPoolExecutor(1)
        return self

    def put(self, frame: np.ndarray, number: int) -> None:
        """Queue a frame (H, W, 3) uint8; it must not be changed afterwards."""
        prepared = self._preparing.submit(self._convert, frame, number)
        self._waiting.append(self._encoding.submit(self._encode, prepared))
        while len(self._waiting) > MAX_WAITING or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()

    def _convert(self, frame: np.ndarray, number: int) -> tuple[Any, tuple[int, ...]]:
        picture = self._prepare(frame, number)
        return to_yuv420(picture), picture.shape

    def _encode(self, prepared: Future[tuple[Any, tuple[int, ...]]]) -> None:
        self._writer.write_converted(*prepared.result())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while error is None and self._waiting:
                self._waiting.popleft().result()
        except BaseException as failure:
            self._stop()
            self._writer.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._stop()
        self._writer.__exit__(kind, error, trace)

    def _stop(self) -> None:
        """End the threads; frames that still wait are dropped."""
        self._preparing.shutdown(cancel_futures=True)
        self._encoding.shutdown(cancel_futures=True)
