"""The photo that stands beside the animation (SPEC 15)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from common.rectangle import Rectangle

PANEL_EXTENT = 1.5  # side of the shown box, in photo sides


def photo_panel(photo: Tensor, height: int) -> Tensor:
    """The photo (3, H, W) centred on white at `height` pixels: (3, height, int(W / H * height)).

    The box of 1.5 times the photo's width and height around its centre is warped bilinearly; white outside.
    """
    _, photo_height, photo_width = photo.shape
    width = int(photo_width / photo_height * height)
    return warp_box(photo, Rectangle(0, 0, photo_width, photo_height).extended(PANEL_EXTENT), height, width)


def warp_box(image: Tensor, box: Rectangle, height: int, width: int) -> Tensor:
    """The box of an image (3, H, W) resized to (3, height, width): bilinear, white outside."""
    rows = _source_positions(box.y, box.height, height, image.shape[1], image)
    columns = _source_positions(box.x, box.width, width, image.shape[2], image)
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[None]
    warped = F.grid_sample(image[None] - 1, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return warped[0] + 1


def _source_positions(start: float, extent: float, n_out: int, n_image: int, like: Tensor) -> Tensor:
    """Image pixel indices of the warped pixels along one axis, mapped to grid_sample's [-1, 1]."""
    out = torch.arange(n_out, dtype=like.dtype, device=like.device)
    source = out * (extent / n_out) + start
    return source / max(n_image - 1, 1) * 2 - 1
