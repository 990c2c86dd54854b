"""Videos decode back to what was written, in a form that browsers play."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from common.errors import UserError
from common.io.video import QUICK, SMALL, Effort, VideoWriter, read_video, to_yuv420
from common.yuv420 import planes_size, split_planes
from tests.slow_yuv420 import slow_planes

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


@pytest.mark.parametrize("effort", [SMALL, QUICK])
def test_format_is_browser_playable(tmp_path, effort: Effort):
    path = tmp_path / "video.mp4"
    with VideoWriter(path, 25, effort) as video:
        for color in COLORS:
            video.write(_flat(color))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.codec_context.profile in ("High", "Main", "Constrained Baseline")
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


@pytest.mark.parametrize(("height", "width"), [(48, 64), (62, 66), (33, 47), (1, 2)])
def test_planes_are_those_of_the_slow_twin(height, width):
    """FFmpeg filters chroma with a kernel of its own, which on a smooth picture makes no difference."""
    y, x = np.mgrid[:height, :width]
    frame = np.stack([2 * x, 255 - 3 * y, 100 + y + x], axis=2).astype(np.uint8)
    planes = to_yuv420(frame)
    assert planes.shape == planes_size(height, width) and planes.dtype == np.uint8
    luma, *chroma = (
        np.abs(found - expected).max()
        for found, expected in zip(split_planes(planes), split_planes(slow_planes(frame)), strict=True)
    )
    assert luma <= 1 and max(chroma) <= 2


@pytest.mark.parametrize("size", [(48, 64), (62, 66)])
def test_planes_and_the_frame_they_are_made_of_give_one_video(tmp_path, size):
    frames = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    with VideoWriter(tmp_path / "frames.mp4", 30) as video:
        for frame in frames:
            video.write(frame)
    with VideoWriter(tmp_path / "planes.mp4", 30) as video:
        for frame in frames:
            video.write_planes(to_yuv420(frame))
    for found, expected in zip(
        _decode(tmp_path / "planes.mp4"), _decode(tmp_path / "frames.mp4"), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "planes",
    [
        np.zeros((48, 64, 3), np.uint8),
        np.zeros((72, 64)),
        np.zeros((71, 64), np.uint8),
        np.zeros((72, 63), np.uint8),
    ],
)
def test_what_no_planes_are_is_refused(tmp_path, planes):
    with pytest.raises(ValueError, match="planes"), VideoWriter(tmp_path / "video.mp4", fps=30) as video:
        video.write_planes(planes)


def test_a_moving_picture_is_near_lossless_and_nearer_by_the_quick_way(tmp_path):
    y, x = np.mgrid[:96, :128]
    greys = [128 + 60 * np.sin((x + 3 * t) / 9) + 60 * np.cos((y - t) / 7) for t in range(20)]
    frames = [np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2) for grey in greys]
    mean_errors = []
    for effort in (SMALL, QUICK):
        with VideoWriter(tmp_path / "video.mp4", 30, effort) as video:
            for frame in frames:
                video.write(frame)
        found = np.stack(list(read_video(tmp_path / "video.mp4"))).astype(float)
        errors = np.square(found - np.stack(frames)).mean(axis=(1, 2, 3))
        assert (10 * np.log10(255**2 / errors) > 40).all()
        mean_errors.append(errors.mean())
    assert mean_errors[1] < mean_errors[0]
