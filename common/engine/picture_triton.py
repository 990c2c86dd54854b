"""8-bit pictures on the GPU: the kernels of `picture_kernels` (SPEC 15)."""

from __future__ import annotations

from torch import Tensor

from common.engine import picture_kernels
from common.frame_label import corner

BLOCK = 256


def compose(image: Tensor, background: Tensor | None, picture: Tensor, left: int, is_broken: Tensor) -> None:
    """Write the image (4, H, W) over white or a background (H, W, 3) uint8 into the picture (H, ., 3) from `left`."""
    n_pixels = image.shape[1] * image.shape[2]
    picture_kernels.compose[(-(-n_pixels // BLOCK),)](
        image,
        picture if background is None else background,
        picture,
        is_broken,
        n_pixels,
        image.shape[2],
        picture.shape[1],
        left,
        HAS_BACKGROUND=background is not None,
        BLOCK=BLOCK,
    )


def draw_number(picture: Tensor, panel: Tensor | None, digits: Tensor, coverage: Tensor) -> None:
    """`common.frame_label.draw_number` for digits (N_DIGITS,) on the device; none where they are -1.

    The panel (H, ., 3) uint8 on the picture's left comes back where an earlier number lay.
    """
    top, left = corner(len(picture))
    n = len(digits) * coverage[0].numel()
    picture_kernels.number[(-(-n // BLOCK),)](
        picture,
        picture if panel is None else panel,
        digits,
        coverage,
        n,
        top,
        left,
        *coverage.shape[1:],
        *picture.shape[:2],
        0 if panel is None else panel.shape[1],
        BLOCK=BLOCK,
    )


def write_planes(picture: Tensor, planes: Tensor) -> None:
    """Write the planes (3 / 2 H, W) uint8 of `common.yuv420` of a picture (H, W, 3) uint8, both contiguous."""
    height, width = picture.shape[:2]
    n = ((height + 1) // 2) * ((width + 1) // 2)
    picture_kernels.yuv420[(-(-n // BLOCK),)](picture, planes, height, width, BLOCK=BLOCK)
