"""The inference engine: an avatar prepared once, then 8-bit pictures of it in any poses (SPEC 15)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from common.avatar import Avatar
from common.camera import Camera
from common.engine.frame_source import PackedShot, Shot, packed
from common.engine.pose_rows import PoseRow, PoseRows
from common.engine.static_avatar import StaticAvatar
from common.io.image import to_uint8
from common.pose import SmplxParams
from common.rasterizer import rasterize
from common.renders import over

logger = logging.getLogger(__name__)


class Drawing(Protocol):
    """Makes pictures of packed shots, in order."""

    def pictures(self, shots: Iterable[PackedShot]) -> Iterator[np.ndarray]:
        """The pictures (H, ., 3) uint8."""


class Engine:
    """Draws the refined avatar over white or over backgrounds, beside a fixed panel.

    The avatar's parameters are read when the engine is made; later changes to them do not show.
    """

    def __init__(self, avatar: Avatar, height: int, width: int, panel: np.ndarray | None = None) -> None:
        """height, width: of the renders in pixels; panel: picture (H, ., 3) uint8 that stands on their left."""
        if panel is not None and (panel.ndim != 3 or panel.shape[0] != height):
            raise ValueError(f"a panel of {height} rows expected, got {panel.shape}")
        self.static = StaticAvatar.of(avatar)
        self.rows = PoseRows(avatar)
        self.device = self.static.base.device
        upright = replace(SmplxParams.zeros(), root_pose=torch.tensor([math.pi, 0.0, 0.0]))
        in_front = replace(upright, trans=torch.tensor([0.0, 0.0, 3.0]))
        camera = Camera.identity((float(height), float(height)), (width / 2, height / 2), height, width)
        probe = self.rows.pack([in_front], [camera])[0]
        self.drawing = _drawing(self.static, height, width, panel, probe)

    def pictures(self, shots: Iterable[Shot]) -> Iterator[np.ndarray]:
        """A picture (H, panel's width + W, 3) uint8 of every shot, in order; each is the caller's to keep."""
        return self.drawing.pictures(packed(shots, self.rows, is_pinned=self.device.type == "cuda"))


def _drawing(
    static: StaticAvatar, height: int, width: int, panel: np.ndarray | None, probe: Tensor
) -> Drawing:
    if _is_gpu(static.base.device):
        try:
            from common.engine.gpu_drawing import GpuDrawing

            return GpuDrawing(static, height, width, panel, probe)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a missing or broken compiler fails in many ways
            lines = str(error).strip().splitlines()
            reason = f"{type(error).__name__}: {lines[0] if lines else ''}"
            logger.warning("the fast GPU engine is not available (%s); a slower one is used", reason)
    return PlainDrawing(static, height, width, panel)


def _is_gpu(device: torch.device) -> bool:
    return device.type == "cuda"


class PlainDrawing:
    """Draws frame by frame with torch and the rasterizer's backend of the device."""

    def __init__(self, static: StaticAvatar, height: int, width: int, panel: np.ndarray | None) -> None:
        self.static, self.height, self.width, self.panel = static, height, width, panel

    @torch.no_grad()
    def pictures(self, shots: Iterable[PackedShot]) -> Iterator[np.ndarray]:
        """The pictures (H, ., 3) uint8."""
        for shot in shots:
            picture = self._draw(shot)
            yield picture if self.panel is None else np.concatenate([self.panel, picture], axis=1)

    def _draw(self, shot: PackedShot) -> np.ndarray:
        device = self.static.base.device
        pose = PoseRow.of(shot.row.to(device), self.height, self.width)
        image = draw_image(self.static, self.static.mean(pose), pose)
        background: Tensor | float = 1.0
        if shot.background is not None:
            background = shot.background.to(device).permute(2, 0, 1).float() / 255
        return to_uint8(over(image[:3], image[3:], background))


def draw_image(static: StaticAvatar, mean: Tensor, pose: PoseRow) -> Tensor:
    """Premultiplied colour and mask (4, H, W) of the Gaussians at their posed means (N, 3)."""
    return rasterize(replace(static.drawn, mean=mean), pose.camera, static.channels)
