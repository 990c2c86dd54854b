"""The image that several scenes are drawn on together, and its tiles (SPEC 10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

from common.rasterizer.interface import TILE_PX, Splats


@dataclass(frozen=True)
class Canvas:
    """Images that are drawn together, one below the other."""

    width: int
    height: int
    tops: tuple[int, ...]  # first row of each image, a multiple of TILE_PX
    sizes: tuple[tuple[int, int], ...]  # height, width of each image

    @staticmethod
    def of(scenes: Sequence[Splats]) -> Canvas:
        """Room for every scene's image; each begins with a tile of its own."""
        sizes = tuple((scene.camera.height, scene.camera.width) for scene in scenes)
        heights = [-(-height // TILE_PX) * TILE_PX for height, _ in sizes[:-1]]
        tops = tuple(accumulate(heights, initial=0))
        return Canvas(max(width for _, width in sizes), tops[-1] + sizes[-1][0], tops, sizes)

    @property
    def n_tiles(self) -> tuple[int, int]:
        """Tiles in a row of the canvas, and in all."""
        tiles_x = -(-self.width // TILE_PX)
        return tiles_x, tiles_x * -(-self.height // TILE_PX)


@lru_cache(maxsize=64)
def image_of_tiles(canvas: Canvas, device: torch.device) -> Tensor:
    """The image that every row of tiles belongs to."""
    rows = torch.arange(-(-canvas.height // TILE_PX)) * TILE_PX
    tops = torch.tensor(canvas.tops)
    return (torch.searchsorted(tops, rows, right=True) - 1).int().to(device)
