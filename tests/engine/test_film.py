"""A film holds the engine's pictures in their order."""

from __future__ import annotations

import numpy as np
import pytest

from common.engine import Engine, Shot
from common.engine.film import film, film_speed
from common.io.video import read_video
from tests.tiny_person import tiny_avatar, tiny_camera, tiny_params

HEIGHT, WIDTH = 48, 32
SHOTS = [Shot(tiny_params(i), tiny_camera(HEIGHT, WIDTH), number=i) for i in range(5)]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny_avatar(), HEIGHT, WIDTH, is_video=True)


def test_a_film_holds_the_pictures_in_order(tmp_path, engine):
    seen = []

    def watch(pictures):
        for picture in pictures:
            seen.append(picture.copy())
            yield picture

    assert film(engine, SHOTS, tmp_path / "film.mp4", 30, watch) == len(seen) == len(SHOTS)
    expected = list(Engine(tiny_avatar(), HEIGHT, WIDTH).pictures(SHOTS))
    frames = list(read_video(tmp_path / "film.mp4"))
    assert len(frames) == len(SHOTS)
    distances = np.array([[np.abs(a.astype(int) - b).mean() for b in expected] for a in frames])
    assert (distances.argmin(1) == np.arange(len(SHOTS))).all()


def test_the_speed_counts_all_frames(engine):
    speed = film_speed(engine, SHOTS, 30)
    assert speed.n_frames == len(SHOTS) and speed.seconds > 0


def test_an_engine_for_pictures_is_refused(tmp_path):
    with pytest.raises(ValueError, match="for video"):
        film(Engine(tiny_avatar(), HEIGHT, WIDTH), SHOTS, tmp_path / "film.mp4", 30)
    assert not list(tmp_path.iterdir())
