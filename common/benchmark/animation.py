"""Frames a second of an animation: the plain path, the engine, and the engine with encoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from common.avatar import Avatar
from common.benchmark.agreement import Agreement, measure_agreement
from common.engine import Engine, Shot
from common.engine.film import film_speed
from common.engine.plain import render_plain
from common.engine.speed import repeated, speed_of
from common.io.image import to_uint8

FPS = 30


@dataclass(frozen=True)
class AnimationTimes:
    """Milliseconds a frame."""

    n_gaussians: int
    height: int
    width: int
    plain: float
    preparation_s: float  # making the engine, its first frame included
    engine: float  # to pictures in host memory
    encoded: float  # the same, and encoded meanwhile
    agreement: Agreement  # with the plain path


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
    for_video = Engine(avatar, camera.height, camera.width, is_video=True)
    list(for_video.pictures(shots[:1]))
    encoded = film_speed(for_video, repeated(shots, n_frames), FPS)
    return AnimationTimes(
        n_gaussians=len(avatar.scale),
        height=camera.height,
        width=camera.width,
        plain=plain_speed.milliseconds,
        preparation_s=preparation.seconds,
        engine=speed.milliseconds,
        encoded=encoded.milliseconds,
        agreement=measure_agreement(avatar, engine, shots[:n_plain]),
    )
