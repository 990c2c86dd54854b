"""Which part of two images LPIPS has to look at: where they differ, and all that is seen by what sees that.

A feature that sees equal pixels only is equal in both images and adds nothing to their distance, nor to its
gradient. A part of the images gives what the whole gives if every feature that sees a difference is in it and sees
nothing beyond its border, where zeros take the place of the image. Features are counted over the whole images.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

WORTHWHILE = 0.9  # a part larger than this share of the image is not cut out
Size = tuple[int, int]  # height, width


class Box(NamedTuple):
    """Rows and columns of an image, in pixels; ends are not included."""

    top: int
    bottom: int
    left: int
    right: int

    @staticmethod
    def around(is_in: Tensor) -> Box:
        """The smallest box around all that is true in (H, W); the host waits for it."""
        rows, columns = (is_in.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        return Box(rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if rows else NOTHING

    @staticmethod
    def whole(size: Size) -> Box:
        """All of an image."""
        return Box(0, size[0], 0, size[1])

    @property
    def area(self) -> int:
        """Number of pixels."""
        return (self.bottom - self.top) * (self.right - self.left)

    def cut(self, images: Tensor) -> Tensor:
        """This part of images (..., H, W), as a view."""
        return images[..., self.top : self.bottom, self.left : self.right]

    def joined(self, other: Box) -> Box:
        """The smallest box around both."""
        if not self.area or not other.area:
            return self if self.area else other
        return Box(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )

    def grown(self, by: int, size: Size) -> Box:
        """Larger on every side, as far as the image goes."""
        return Box(
            max(self.top - by, 0),
            min(self.bottom + by, size[0]),
            max(self.left - by, 0),
            min(self.right + by, size[1]),
        )


NOTHING = Box(0, 0, 0, 0)


class Sight(NamedTuple):
    """What the features of a network see, along either axis."""

    cells: tuple[int, ...]  # pixels from one feature to the next, for each compared layer
    reach: int  # pixels that a feature of the last one sees beyond its own cell, to either side

    def n_features(self, level: int, size: Size) -> int:
        """Number of features that a compared layer has of an image."""
        return (size[0] // self.cells[level]) * (size[1] // self.cells[level])


def part_to_see(differing: Box, size: Size, sight: Sight) -> Box:
    """The part of images that gives the distance of the whole, if they are equal outside the box `differing`.

    Nothing of equal images; all of images of which the part is nearly all. Its borders are borders of cells, so
    that poolings pair the same pixels in it.
    """
    if not differing.area:
        return NOTHING
    rows = _to_see(differing.top, differing.bottom, size[0], sight)
    part = Box(*rows, *_to_see(differing.left, differing.right, size[1], sight))
    return part if part.area <= WORTHWHILE * size[0] * size[1] else Box.whole(size)


def _to_see(start: int, stop: int, size: int, sight: Sight) -> tuple[int, int]:
    cell = sight.cells[-1]
    for _ in range(2):  # features that see a difference; then all that these see
        start = (start - sight.reach) // cell * cell
        stop = -(-(stop + sight.reach) // cell) * cell
    return max(start, 0), min(stop, size)
