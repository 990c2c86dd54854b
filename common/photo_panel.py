"""The photo that stands beside the animation (SPEC 15)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PANEL_EXTENT = 1.5  # side of the shown box, in photo sides


def photo_panel(photo: Tensor, height: int) -> Tensor:
    """The photo (3, H, W) centred on white at `height` pixels: (3, height, int(W / H * height)).

    The box of 1.5 times the photo's width and height around its centre is warped bilinearly; white outside.
    """
    _, photo_height, photo_width = photo.shape
    width = int(photo_width / photo_height * height)
    rows = _source_positions(height, photo_height, photo)
    columns = _source_positions(width, photo_width, photo)
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[None]
    warped = F.grid_sample(photo[None] - 1, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return warped[0] + 1


def _source_positions(n_out: int, n_photo: int, like: Tensor) -> Tensor:
    """Photo pixel indices of the panel's pixels along one axis, mapped to grid_sample's [-1, 1]."""
    out = torch.arange(n_out, dtype=like.dtype, device=like.device)
    source = (out - n_out / 2) * (PANEL_EXTENT * n_photo / n_out) + n_photo / 2
    return source / max(n_photo - 1, 1) * 2 - 1
