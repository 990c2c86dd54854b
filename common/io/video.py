"""H.264 videos that a browser plays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from common.errors import UserError
from common.io.atomic import atomic_path
from common.io.files import open_file
from common.io.image import MAX_PIXELS
from common.yuv420 import split_planes

_BROKEN = (av.FFmpegError, ValueError, TypeError, OSError, EOFError, MemoryError, RuntimeError, OverflowError)


@dataclass(frozen=True)
class Effort:
    """How x264 encodes."""

    options: Mapping[str, str]
    n_threads: int = 0  # frames encoded beside each other; 0: as many as x264 likes


# Both are visually near lossless. The second is nearer, quicker and makes larger files; by a constant quantizer,
# because for any other rate one thread of x264 looks at every frame beforehand, and the others wait for it.
SMALL = Effort({"preset": "veryfast", "crf": "17"})
QUICK = Effort({"preset": "ultrafast", "qp": "22", "x264-params": "deblock=0,0"}, n_threads=12)


def read_video(path: Path) -> Iterator[np.ndarray]:
    """The frames (H, W, 3) uint8 RGB of an mp4 with one size, one at a time; UserError if it is broken.

    FFmpeg gets the opened file and one format only, so that a file cannot make it read others.
    """
    with open_file(path) as file:
        try:
            with av.open(file, "r", format="mp4") as container:
                if not container.streams.video:
                    raise UserError(f"{path} has no video in it; write it again")
                stream = container.streams.video[0]
                context = stream.codec_context
                if context is None:
                    raise ValueError("no decoder for it")
                context.thread_count = 1
                context.options = {"max_pixels": str(MAX_PIXELS)}
                size = context.height, context.width
                frame = None
                for frame in container.decode(stream):
                    if (frame.height, frame.width) != size:
                        raise UserError(f"{path} changes its size from frame to frame; write it again")
                    yield frame.to_ndarray(format="rgb24")
                if frame is None:
                    raise UserError(f"{path} has no frames in it; write it again")
        except _BROKEN as error:
            raise UserError(f"{path} is truncated or not an mp4 video ({error}); write it again") from error


class VideoWriter:
    """Writes frames to an mp4: `with VideoWriter(path, fps) as video: video.write(frame)`.

    H.264 in yuv420p (BT.709), index first so that it plays while it loads. An odd height or width gets its
    last row or column twice, because yuv420p needs even sizes. The file has its final name only when it is
    complete; there is none if the block ends with an error.
    """

    def __init__(self, path: Path, fps: int, effort: Effort = SMALL) -> None:
        self.path = path
        self.fps = fps
        self.effort = effort
        self._stack = ExitStack()
        self._stream: av.VideoStream | None = None

    def __enter__(self) -> VideoWriter:
        temporary = self._stack.enter_context(atomic_path(self.path))
        options = {"movflags": "+faststart"}
        with self._writing():
            self._container = av.open(str(temporary), "w", format="mp4", options=options)
        self._stack.callback(self._container.close)
        return self

    def write(self, frame: np.ndarray) -> None:
        """Add a frame (H, W, 3) uint8 RGB; all frames must have the first one's size."""
        self.write_planes(to_yuv420(frame))

    def write_planes(self, planes: np.ndarray) -> None:
        """Add a frame as the contiguous, writable planes (3 / 2 H, W) uint8 of `common.yuv420`."""
        if planes.dtype != np.uint8 or planes.ndim != 2 or planes.shape[0] % 3 or planes.shape[1] % 2:
            raise ValueError(f"expected planes (3 / 2 H, W) uint8, got {planes.shape} {planes.dtype}")
        frame = av.VideoFrame.from_dlpack(split_planes(planes), "yuv420p")  # no copy: x264 makes its own
        if self._stream is None:
            self._stream = self._open_stream(frame.height, frame.width)
        size = self._stream.height, self._stream.width
        if (frame.height, frame.width) != size:
            raise ValueError(f"expected {size}, got {(frame.height, frame.width)}")
        with self._writing():
            self._container.mux(self._stream.encode(frame))

    def _open_stream(self, height: int, width: int) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=self.fps)
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuv420p"
        effort, context = self.effort, stream.codec_context
        context.thread_type = "FRAME"  # whole frames beside each other; slices of one keep fewer cores busy
        context.thread_count = effort.n_threads
        stream.options = dict(effort.options)
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        return stream

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack, self._writing():
            if self._stream is None:
                raise UserError(f"{self.path}: no frames to write")
            self._container.mux(self._stream.encode())
            self._container.close()  # writes the index

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            raise UserError(
                f"cannot write {self.path}: {error}; free space or choose another folder"
            ) from error


def to_yuv420(frame: np.ndarray) -> np.ndarray:
    """The planes (3 / 2 H, W) of `common.yuv420` of a frame (H, W, 3) uint8 RGB, by FFmpeg."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"expected (H, W, 3) uint8, got {frame.shape} {frame.dtype}")
    if frame.shape[0] % 2 or frame.shape[1] % 2:
        frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709).to_ndarray()
