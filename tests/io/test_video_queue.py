"""A queued video holds what one written frame by frame holds, and errors of its threads are raised."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import UserError
from common.io.video import VideoWriter, read_video
from common.io.video_queue import MAX_WAITING, VideoQueue

FRAMES = np.random.default_rng(0).integers(0, 256, (2 * MAX_WAITING + 6, 33, 47, 3), np.uint8)
GREY_LEVELS = 24  # between the greys of consecutive digits: far more than the encoder loses


def numbered(frame: np.ndarray, number: int) -> np.ndarray:
    """The frame with its two digits as grey squares."""
    marked = frame.copy()
    marked[:16, :16], marked[:16, 16:32] = GREY_LEVELS * (number // 10), GREY_LEVELS * (number % 10)
    return marked


def number_of(frame: np.ndarray) -> int:
    tens, ones = (round(frame[4:12, x : x + 8].mean() / GREY_LEVELS) for x in (4, 20))
    return 10 * tens + ones


def write_plainly(path):
    with VideoWriter(path, 30) as video:
        for number, frame in enumerate(FRAMES):
            video.write(numbered(frame, number))


def write_queued(path):
    with VideoQueue(path, 30, numbered) as video:
        for number, frame in enumerate(FRAMES):
            video.put(frame, number)


@pytest.fixture
def encoded(monkeypatch):
    """The planes (Y above U and V) of every picture that is handed to an encoder."""
    planes = []
    write_converted = VideoWriter.write_converted

    def record(writer, picture, shape):
        planes.append(picture.to_ndarray())
        write_converted(writer, picture, shape)

    monkeypatch.setattr(VideoWriter, "write_converted", record)
    return planes


def test_the_encoder_gets_the_pictures_of_the_plain_writer_in_the_same_order(tmp_path, encoded):
    # Not the files: x264 itself does not repeat to the byte.
    write_plainly(tmp_path / "plain.mp4")
    plain = encoded.copy()
    encoded.clear()
    write_queued(tmp_path / "queued.mp4")
    assert len(plain) == len(encoded) == len(FRAMES)
    for expected, found in zip(plain, encoded, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("write", [write_plainly, write_queued])
def test_the_decoded_video_has_all_frames_in_order(tmp_path, write):
    write(tmp_path / "v.mp4")
    assert [number_of(frame) for frame in read_video(tmp_path / "v.mp4")] == list(range(len(FRAMES)))


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
