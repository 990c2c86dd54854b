"""Videos decode back to what was written, in a form that browsers play."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from common.errors import UserError
from common.io.video import VideoWriter

COLORS = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (255, 255, 255), (0, 0, 0)]


def _flat(color: tuple[int, int, int], height: int = 48, width: int = 64) -> np.ndarray:
    return np.broadcast_to(np.array(color, dtype=np.uint8), (height, width, 3))


def _decode(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_frames_come_back_in_number_order_and_colour(tmp_path):
    path = tmp_path / "new folder" / "video.mp4"
    with VideoWriter(path, fps=30) as video:
        for color in COLORS:
            video.write(_flat(color))
    frames = _decode(path)
    assert len(frames) == len(COLORS)
    for frame, color in zip(frames, COLORS, strict=True):
        assert frame.shape == (48, 64, 3)
        assert np.abs(frame.astype(int) - np.array(color)).max() <= 4


def test_format_is_browser_playable(tmp_path):
    path = tmp_path / "video.mp4"
    with VideoWriter(path, fps=25) as video:
        for color in COLORS:
            video.write(_flat(color))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 25
        assert stream.duration * stream.time_base == pytest.approx(len(COLORS) / 25)
    content = path.read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat"), "the index must come first"


def test_odd_sizes_repeat_the_last_row_and_column(tmp_path):
    path = tmp_path / "video.mp4"
    with VideoWriter(path, fps=30) as video:
        video.write(_flat((90, 120, 150), 33, 47))
    (frame,) = _decode(path)
    assert frame.shape == (34, 48, 3)
    assert np.abs(frame.astype(int) - (90, 120, 150)).max() <= 4


def test_failed_or_empty_video_leaves_no_file(tmp_path):
    path = tmp_path / "video.mp4"
    with pytest.raises(UserError, match="no frames"), VideoWriter(path, fps=30):
        pass
    with pytest.raises(KeyError), VideoWriter(path, fps=30) as video:
        video.write(_flat((1, 2, 3)))
        raise KeyError("render failed")
    with pytest.raises(KeyError), VideoWriter(path, fps=30):
        raise KeyError("render failed before the first frame")
    assert list(tmp_path.iterdir()) == []


def test_frames_of_another_size_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected"), VideoWriter(tmp_path / "video.mp4", fps=30) as video:
        video.write(_flat((1, 2, 3)))
        video.write(_flat((1, 2, 3), 48, 66))


def test_unwritable_folder_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"), VideoWriter(tmp_path / "file" / "v.mp4", fps=30):
        pass
