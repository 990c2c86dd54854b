"""A queued video is the same file as one that is written frame by frame, and errors of its threads are raised."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import UserError
from common.io.video import VideoWriter
from common.io.video_queue import VideoQueue

FRAMES = np.random.default_rng(0).integers(0, 256, (70, 33, 47, 3), np.uint8)  # more than may wait


def numbered(frame: np.ndarray, number: int) -> np.ndarray:
    marked = frame.copy()
    marked[:8, :8] = number
    return marked


def test_the_file_is_that_of_the_plain_writer(tmp_path):
    with VideoWriter(tmp_path / "plain.mp4", 30) as plain:
        for number, frame in enumerate(FRAMES):
            plain.write(numbered(frame, number))
    with VideoQueue(tmp_path / "queued.mp4", 30, numbered) as video:
        for number, frame in enumerate(FRAMES):
            video.put(frame, number)
    assert (tmp_path / "queued.mp4").read_bytes() == (tmp_path / "plain.mp4").read_bytes()


def test_an_error_in_a_thread_is_raised_and_leaves_no_file(tmp_path):
    def broken(frame: np.ndarray, number: int) -> np.ndarray:
        if number == 3:
            raise KeyError("frame 3")
        return frame

    with pytest.raises(KeyError, match="frame 3"), VideoQueue(tmp_path / "v.mp4", 30, broken) as video:
        for number, frame in enumerate(FRAMES):
            video.put(frame, number)
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_caller_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), VideoQueue(tmp_path / "v.mp4", 30, numbered) as video:
        video.put(FRAMES[0], 0)
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_a_video_without_frames_is_refused(tmp_path):
    with pytest.raises(UserError, match="no frames"), VideoQueue(tmp_path / "v.mp4", 30, numbered):
        pass
