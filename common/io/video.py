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

_QUALITY = "18"  # x264 constant rate factor: visually near lossless


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
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"expected (H, W, 3) uint8, got {frame.shape} {frame.dtype}")
        if self._stream is None:
            self._shape = frame.shape
            self._stream = self._open_stream(*frame.shape[:2])
        if frame.shape != self._shape:
            raise ValueError(f"expected {self._shape}, got {frame.shape}")
        even = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        with self._writing():
            self._container.mux(self._stream.encode(picture))

    def _open_stream(self, height: int, width: int) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=self.fps)
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": _QUALITY}
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
