"""Frames a second of an animation: the plain path, the engine, and the engine with encoding."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common.avatar import Avatar
from common.engine import Engine, Shot
from common.engine.plain import render_plain
from common.engine.speed import repeated, speed_of
from common.io.image import to_uint8
from common.io.video_queue import VideoQueue

FPS = 30


@dataclass(frozen=True)
class AnimationTimes:
    """Milliseconds a frame; differences are in grey levels of 8-bit images."""

    n_gaussians: int
    height: int
    width: int
    plain: float
    preparation_s: float  # making the engine, its first frame included
    engine: float  # to pictures in host memory
    encoded: float  # the same, and encoded meanwhile
    largest_difference: int  # of the engine's pictures from the plain path's
    share_over_one: float  # of the values that differ by more than one level


def measure_animation(avatar: Avatar, shots: Sequence[Shot], n_plain: int, n_frames: int) -> AnimationTimes:
    """Draw the shots over and over: `n_plain` frames by the plain path, `n_frames` by the engine."""
    camera = shots[0].camera
    device = avatar.scale.device

    def plain(shot: Shot) -> np.ndarray:
        return to_uint8(render_plain(avatar, shot.params, shot.camera))

    plain_speed = speed_of(repeated(shots, 0, n_plain), plain)
    made: list[Engine] = []

    def first(shot: Shot) -> None:
        made.append(Engine(avatar, camera.height, camera.width))
        list(made[0].pictures([shot]))
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    preparation = speed_of([shots[0]], first, warm_up=0)
    engine = made[0]
    speed = speed_of(engine.pictures(repeated(shots, n_frames)), lambda _: None)
    compared = list(shots[:n_plain])
    differences = [
        np.abs(plain(shot).astype(int) - picture)
        for shot, picture in zip(compared, engine.pictures(compared), strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        queue = VideoQueue(Path(folder) / "benchmark.mp4", FPS, lambda picture, _: picture)
        queue.__enter__()
        encoded = speed_of(
            engine.pictures(repeated(shots, n_frames)),
            lambda picture: queue.put(picture, 0),
            finish=lambda: queue.__exit__(None, None, None),
        )
    return AnimationTimes(
        n_gaussians=len(avatar.scale),
        height=camera.height,
        width=camera.width,
        plain=plain_speed.milliseconds,
        preparation_s=preparation.seconds,
        engine=speed.milliseconds,
        encoded=encoded.milliseconds,
        largest_difference=max(int(d.max()) for d in differences),
        share_over_one=float(np.mean([(d > 1).mean() for d in differences])),
    )
