"""A queued video holds what one written frame by frame holds, and errors of its threads are raised."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import UserError
from common.io.video import VideoWriter, read_video, to_yuv420
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
    with VideoQueue(path, 30) as video:
        for number, frame in enumerate(FRAMES):
            video.put(to_yuv420(numbered(frame, number)))


@pytest.fixture
def encoded(monkeypatch):
    """The planes of every picture that is handed to an encoder."""
    kept = []
    write_planes = VideoWriter.write_planes

    def record(writer, planes):
        kept.append(planes.copy())
        write_planes(writer, planes)

    monkeypatch.setattr(VideoWriter, "write_planes", record)
    return kept


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


def test_an_error_in_the_thread_is_raised_and_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match="planes"), VideoQueue(tmp_path / "v.mp4", 30) as video:
        for number, frame in enumerate(FRAMES):
            video.put(frame if number == 3 else to_yuv420(frame))
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_caller_leaves_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), VideoQueue(tmp_path / "v.mp4", 30) as video:
        video.put(to_yuv420(FRAMES[0]))
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_a_video_without_frames_is_refused(tmp_path):
    with pytest.raises(UserError, match="no frames"), VideoQueue(tmp_path / "v.mp4", 30):
        pass
