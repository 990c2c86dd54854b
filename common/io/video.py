"""H.264 videos that a browser plays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from common.errors import UserError
from common.io.atomic import atomic_path
from common.io.files import open_file
from common.io.image import MAX_PIXELS

_BROKEN = (av.FFmpegError, ValueError, TypeError, OSError, EOFError, MemoryError, RuntimeError, OverflowError)
_QUALITY = "17"  # x264 constant rate factor: visually near lossless
_EFFORT = "veryfast"  # x264 preset: half of the time of its default, at this factor as close to the pictures


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

    def __init__(self, path: Path, fps: int) -> None:
        self.path = path
        self.fps = fps
        self._stack = ExitStack()
        self._stream: av.VideoStream | None = None
        self._shape: tuple[int, ...] = ()

    def __enter__(self) -> VideoWriter:
        temporary = self._stack.enter_context(atomic_path(self.path))
        options = {"movflags": "+faststart"}
        with self._writing():
            self._container = av.open(str(temporary), "w", format="mp4", options=options)
        self._stack.callback(self._container.close)
        return self

    def write(self, frame: np.ndarray) -> None:
        """Add a frame (H, W, 3) uint8 RGB; all frames must have the first one's size."""
        self.write_converted(to_yuv420(frame), frame.shape)

    def write_converted(self, picture: av.VideoFrame, shape: tuple[int, ...]) -> None:
        """Add what `to_yuv420` made of a frame of this shape."""
        if self._stream is None:
            self._shape = shape
            self._stream = self._open_stream(*shape[:2])
        if shape != self._shape:
            raise ValueError(f"expected {self._shape}, got {shape}")
        with self._writing():
            self._container.mux(self._stream.encode(picture))

    def _open_stream(self, height: int, width: int) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=self.fps)
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = "yuv420p"
        stream.thread_type = "FRAME"  # whole frames beside each other; slices of one keep fewer cores busy
        stream.options = {"crf": _QUALITY, "preset": _EFFORT}
        context = stream.codec_context
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


def to_yuv420(frame: np.ndarray) -> av.VideoFrame:
    """A frame (H, W, 3) uint8 RGB as the encoder takes it: yuv420p, BT.709, even sizes."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"expected (H, W, 3) uint8, got {frame.shape} {frame.dtype}")
    if frame.shape[0] % 2 or frame.shape[1] % 2:
        frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
