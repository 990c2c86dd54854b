"""A video of an engine's pictures, encoded while the next ones are drawn (SPEC 15)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from common.engine.frame_source import Shot
from common.engine.pictures import Engine
from common.engine.speed import Speed
from common.io.video import QUICK, SMALL
from common.io.video_queue import VideoQueue

Watch = Callable[[Iterable[np.ndarray]], Iterable[np.ndarray]]


def film(engine: Engine, shots: Iterable[Shot], path: Path, fps: int, watch: Watch = iter) -> int:
    """Write the shots as an mp4; how many frames it has. `watch` sees the pictures pass, for a progress bar.

    The engine is one for video. Where a GPU draws, x264 gets the settings that keep up with it.
    """
    if not engine.is_video:
        raise ValueError("an engine for video expected")
    n_frames = 0
    with VideoQueue(path, fps, QUICK if engine.device.type == "cuda" else SMALL) as video:
        for planes in watch(engine.pictures(shots)):
            video.put(planes)
            n_frames += 1
    return n_frames


def film_speed(engine: Engine, shots: Iterable[Shot], fps: int) -> Speed:
    """Frames a second of a film that is thrown away, the file's start and end included."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        n_frames = film(engine, shots, Path(folder) / "film.mp4", fps)
        return Speed(n_frames, time.perf_counter() - start)
