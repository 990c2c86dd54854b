"""A video that is encoded while its next frames are made."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np

from common.io.video import SMALL, Effort, VideoWriter

MAX_WAITING = 32  # frames handed over and not encoded yet


class VideoQueue:
    """`VideoWriter` in a thread: `with VideoQueue(path, fps) as video: video.put(planes)`.

    `put` waits while too many frames are queued; an error of the thread is raised by a later `put` or at the end
    of the block.
    """

    def __init__(self, path: Path, fps: int, effort: Effort = SMALL) -> None:
        self._writer = VideoWriter(path, fps, effort)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> VideoQueue:
        self._writer.__enter__()
        self._encoding = ThreadPoolExecutor(1)
        return self

    def put(self, planes: np.ndarray) -> None:
        """Queue a frame as planes (3 / 2 H, W) uint8 of `common.yuv420`; they must not be changed afterwards."""
        self._waiting.append(self._encoding.submit(self._writer.write_planes, planes))
        while len(self._waiting) > MAX_WAITING or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()

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
        """End the thread; frames that still wait are dropped."""
        self._encoding.shutdown(cancel_futures=True)
