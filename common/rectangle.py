"""Rectangles in images, the boxes of SPEC 3: around points, grown about their centre."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Rectangle(NamedTuple):
    """A box [x, y, w, h] in pixels, as subjects' files have it (SPEC 3); it may leave the image."""

    x: float
    y: float
    width: float
    height: float

    @classmethod
    def around(cls, points: np.ndarray) -> Rectangle:
        """The smallest box around points (n, 2); ValueError if there are none."""
        if not len(points):
            raise ValueError("there is no box around no points")
        (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
        return cls(left, top, right - left, bottom - top)

    def extended(self, factor: float = 1.0, aspect_ratio: float | None = None) -> Rectangle:
        """The box about the same centre: its short side grown to `aspect_ratio` (width / height), both by `factor`."""
        width, height = self.width, self.height
        if aspect_ratio is not None:
            width, height = max(width, height * aspect_ratio), max(height, width / aspect_ratio)
        width, height = width * factor, height * factor
        return Rectangle(
            self.x + (self.width - width) / 2, self.y + (self.height - height) / 2, width, height
        )
