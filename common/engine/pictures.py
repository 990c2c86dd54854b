"""The inference engine: an avatar prepared once, then 8-bit pictures of it in any poses (SPEC 15)."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from common.avatar import Avatar
from common.camera import Camera
from common.engine.frame_source import PackedShot, Shot, packed
from common.engine.pose_rows import ROW_SIZE, PoseRow, PoseRows
from common.engine.static_avatar import StaticAvatar
from common.frame_label import draw_number
from common.io.image import to_uint8
from common.io.video import to_yuv420
from common.pose import SmplxParams
from common.rasterizer import rasterize
from common.renders import over

logger = logging.getLogger(__name__)

N_CONVERTERS = 4  # threads that make video planes


class Drawing(Protocol):
    """Makes pictures of packed shots, in order."""

    def pictures(self, shots: Iterable[PackedShot]) -> Iterator[np.ndarray]:
        """The pictures (H, ., 3) uint8, or their planes."""

    def mean(self, row: Tensor) -> Tensor:
        """Means (N, 3) of the posed Gaussians in world space, in the avatar's order, of a row (ROW_SIZE,)."""


class Engine:
    """Draws the refined avatar over white or over backgrounds, beside a fixed panel.

    The avatar's parameters are read when the engine is made; later changes to them do not show.
    """

    def __init__(
        self,
        avatar: Avatar,
        height: int,
        width: int,
        panel: np.ndarray | None = None,
        is_video: bool = False,
    ) -> None:
        """height, width: of the renders in pixels; panel: picture (H, ., 3) uint8 that stands on their left;
        is_video: pictures come as the planes of `common.yuv420`, which video encoders take.
        """
        if panel is not None and (panel.ndim != 3 or panel.shape[0] != height):
            raise ValueError(f"a panel of {height} rows expected, got {panel.shape}")
        self.height, self.is_video = height, is_video
        self.static = StaticAvatar.of(avatar)
        self.rows = PoseRows(avatar)
        self.device = self.static.base.device
        upright = replace(SmplxParams.zeros(), root_pose=torch.tensor([math.pi, 0.0, 0.0]))
        in_front = replace(upright, trans=torch.tensor([0.0, 0.0, 3.0]))
        camera = Camera.identity((float(height), float(height)), (width / 2, height / 2), height, width)
        probe = self.rows.pack([in_front], [camera])[0]
        self.drawing = _drawing(self.static, height, width, panel, probe, is_video)

    def pictures(self, shots: Iterable[Shot]) -> Iterator[np.ndarray]:
        """A picture (H, panel's width + W, 3) uint8 of every shot, in order; each is the caller's to keep.

        Of an engine for video it is the picture's planes, which are contiguous.
        """
        return self.drawing.pictures(packed(shots, self.rows, is_pinned=self.device.type == "cuda"))

    def mean(self, shot: Shot) -> Tensor:
        """Means (N, 3) of the Gaussians in world space, in metres, as they are drawn in the shot."""
        return self.drawing.mean(self.rows.pack([shot.params], [shot.camera])[0])


def _drawing(
    static: StaticAvatar, height: int, width: int, panel: np.ndarray | None, probe: Tensor, is_video: bool
) -> Drawing:
    if _is_gpu(static.base.device):
        try:
            from common.engine.gpu_drawing import GpuDrawing

            return GpuDrawing(static, height, width, panel, probe, is_video)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a missing or broken compiler fails in many ways
            lines = str(error).strip().splitlines()
            reason = f"{type(error).__name__}: {lines[0] if lines else ''}"
            logger.warning("the fast GPU engine is not available (%s); a slower one is used", reason)
    return PlainDrawing(static, height, width, panel, is_video)


def _is_gpu(device: torch.device) -> bool:
    return device.type == "cuda"


class PlainDrawing:
    """Draws frame by frame with torch and the rasterizer's backend of the device."""

    def __init__(
        self, static: StaticAvatar, height: int, width: int, panel: np.ndarray | None, is_video: bool
    ) -> None:
        self.static, self.height, self.width, self.panel = static, height, width, panel
        self.is_video = is_video

    def pictures(self, shots: Iterable[PackedShot]) -> Iterator[np.ndarray]:
        """The pictures (H, ., 3) uint8, or their planes."""
        pictures = map(self._picture, shots)
        return _converted(pictures) if self.is_video else pictures

    @torch.no_grad()
    def mean(self, row: Tensor) -> Tensor:
        """Means (N, 3) of the posed Gaussians."""
        return self.static.mean(PoseRow.of(row.to(self.static.base.device), self.height, self.width))

    @torch.no_grad()
    def _picture(self, shot: PackedShot) -> np.ndarray:
        picture = self._draw(shot)
        if self.panel is not None:
            picture = np.concatenate([self.panel, picture], axis=1)
        if shot.number is not None:
            draw_number(picture, shot.number)
        return picture

    def _draw(self, shot: PackedShot) -> np.ndarray:
        device = self.static.base.device
        pose = PoseRow.of(shot.row[:ROW_SIZE].to(device), self.height, self.width)
        image = draw_image(self.static, self.static.mean(pose), pose)
        background: Tensor | float = 1.0
        if shot.background is not None:
            background = shot.background.to(device).permute(2, 0, 1).float() / 255
        return to_uint8(over(image[:3], image[3:], background))


def _converted(pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Planes of the pictures, made in threads while the next ones are drawn."""
    with ThreadPoolExecutor(N_CONVERTERS) as converters:
        waiting: deque[Future[np.ndarray]] = deque()
        for picture in pictures:
            waiting.append(converters.submit(to_yuv420, picture))
            if len(waiting) > N_CONVERTERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def draw_image(static: StaticAvatar, mean: Tensor, pose: PoseRow) -> Tensor:
    """Premultiplied colour and mask (4, H, W) of the Gaussians at their posed means (N, 3)."""
    return rasterize(replace(static.drawn, mean=mean), pose.camera, static.channels)
