"""The timeline's clock."""

from __future__ import annotations

import pytest

from common.viewer.playback import Playback


def test_frames_pass_at_the_motions_rate_and_begin_again():
    clock = Playback(n_frames=10, fps=20.0)
    clock.play(True, 100.0)
    assert [clock.frame(100.0 + 0.05 * i + 1e-4) for i in range(12)] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


def test_frames_are_skipped_when_nobody_asks_in_time():
    clock = Playback(n_frames=100, fps=30.0)
    clock.play(True, 0.0)
    assert clock.frame(2.0 + 1e-4) == 60


@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_speed_changes_the_rate_from_now_on(speed):
    clock = Playback(n_frames=1000, fps=10.0)
    clock.play(True, 0.0)
    clock.set_speed(speed, 3.0)
    assert clock.frame(5.0 + 1e-4) == 30 + int(20 * speed)


def test_a_pause_holds_the_frame_and_seeking_moves_it():
    clock = Playback(n_frames=50, fps=10.0)
    clock.seek(7, 0.0)
    clock.play(True, 0.0)
    clock.play(False, 1.0 + 1e-4)
    assert clock.frame(99.0) == 17 and clock.wait(99.0) is None
    clock.seek(1000, 99.0)
    assert clock.frame(99.0) == 49


def test_the_wait_ends_when_the_next_frame_is_due():
    clock = Playback(n_frames=50, fps=10.0, speed=2.0)
    clock.play(True, 0.0)
    assert clock.frame(0.06) == 1
    assert clock.wait(0.06) == pytest.approx(0.04)


def test_a_motion_of_one_frame_or_none_stands_still():
    for n_frames in (0, 1):
        clock = Playback(n_frames=n_frames, fps=30.0)
        clock.play(True, 0.0)
        assert clock.frame(9.0) == 0 and clock.wait(9.0) is None
