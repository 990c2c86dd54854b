"""Differences of pictures are counted, and float32 rounding alone makes some."""

from __future__ import annotations

import numpy as np
import torch

from common.benchmark.agreement import Difference, measure_agreement
from common.engine import Engine, Shot
from tests.tiny_person import tiny_avatar, tiny_camera, tiny_params

HEIGHT, WIDTH = 240, 160


def test_levels_and_shares() -> None:
    expected = [np.full((2, 2, 3), 100, np.uint8)] * 2
    found = [picture.copy() for picture in expected]
    found[0][0, 0], found[1][1, 1, 2] = (101, 97, 100), 110
    assert Difference.between(found, expected) == Difference(levels=10, share_over_one=2 / 24)


def test_the_engine_agrees_and_a_moved_engine_does_not() -> None:
    avatar = tiny_avatar().requires_grad_(False)
    shots = [Shot(tiny_params(i), tiny_camera(HEIGHT, WIDTH, is_moved=i == 1)) for i in range(2)]
    engine = Engine(avatar, HEIGHT, WIDTH)
    agreement = measure_agreement(avatar, engine, shots)
    for difference in (agreement.engine, agreement.same_depths, agreement.one_ulp):
        assert difference.levels <= 1
    with torch.no_grad():
        avatar.mean_offset.add_(0.01)
    moved = measure_agreement(avatar, engine, shots)
    assert moved.engine.levels > 1 and moved.same_depths.share_over_one > 0
