"""A picture of the fitted body over a subject's frames, for the eye."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import binary_erosion

from common.body_model.body import BodyModel
from common.body_model.identity import Identity
from common.doctor.reprojection import BodyView
from common.doctor.subject import load_view, readable
from common.io.image import read_mask, read_rgb, write_image
from data.dataset import Subject
from data.frame import FrameFiles

HEIGHT = 384  # pixels of each frame
PER_SPLIT = 3
SKIN, OUTLINE = np.array([0.25, 0.6, 1.0]), np.array([1.0, 0.3, 0.1])
OPACITY = 0.6


def write_picture(
    path: Path, subject: Subject, body: BodyModel, identity: Identity | None, keys: list[tuple[str, int]]
) -> int:
    """Draw some frames of each split, the photo first: left as it is, right with body (blue) and mask outline (orange).

    Returns how many frames could be drawn; nothing is written if there are none.
    """
    rows = []
    for split in dict.fromkeys(split for split, _ in keys):
        indices = [index for name, index in keys if name == split]
        chosen = sorted({indices[round(k)] for k in np.linspace(0, len(indices) - 1, PER_SPLIT)})
        panels = [_panel(FrameFiles(subject.root, split, index), body, identity) for index in chosen]
        rows.append([panel for panel in panels if panel is not None])
    n_drawn = sum(map(len, rows))
    if n_drawn:
        strips = [torch.cat(row, dim=2) for row in rows if row]
        width = max(strip.shape[2] for strip in strips)
        padded = [torch.nn.functional.pad(strip, (0, width - strip.shape[2]), value=1.0) for strip in strips]
        write_image(path, torch.cat(padded, dim=1))
    return n_drawn


def _panel(files: FrameFiles, body: BodyModel, identity: Identity | None) -> torch.Tensor | None:
    """One frame beside itself with the body over it (3, HEIGHT, W)."""
    image = readable(lambda: read_rgb(files.image))
    if image is None:
        return None
    size = (image.shape[1], image.shape[2])
    loaded = load_view(files, body, identity, size)
    if loaded is None:
        return None
    mask = readable(lambda: read_mask(files.mask, size))
    is_person = np.zeros(size, bool) if mask is None else mask[0].numpy() > 0
    drawn = torch.from_numpy(overlay(image.permute(1, 2, 0).numpy(), is_person, loaded[2])).permute(2, 0, 1)
    both = torch.cat([image, drawn.to(image)], dim=2)[None]
    width = round(both.shape[3] * HEIGHT / both.shape[2])
    return torch.nn.functional.interpolate(both, (HEIGHT, width), mode="bilinear", antialias=True)[0]


def overlay(image: np.ndarray, mask: np.ndarray, view: BodyView) -> np.ndarray:
    """The image (H, W, 3) with the shaded body and the outline of the mask (H, W) over it."""
    shade = 0.35 + 0.65 * np.clip(view.normal[..., 2:], 0, 1)
    result = np.where(view.is_covered[..., None], (1 - OPACITY) * image + OPACITY * shade * SKIN, image)
    n_pixels = max(1, round(mask.shape[0] / HEIGHT))
    result[mask & ~binary_erosion(mask, iterations=n_pixels)] = OUTLINE
    return result
