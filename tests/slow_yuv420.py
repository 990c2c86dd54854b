"""Video planes by the definition, in floating point: what whole numbers are compared with."""

from __future__ import annotations

import numpy as np

RED, GREEN, BLUE = 0.2126, 0.7152, 0.0722  # ITU-R BT.709
ROUNDED = 0.51  # a level, when the nearest one is taken, weights of 16 bits included


def slow_planes(picture: np.ndarray) -> np.ndarray:
    """The planes (3 / 2 H, W) of a picture (H, W, 3) uint8 RGB, which may have odd sizes; not rounded."""
    even = np.pad(picture, [(0, size % 2) for size in picture.shape[:2]] + [(0, 0)], mode="edge") / 255
    height, width = even.shape[:2]
    flat = [16 + 219 * _luma(even[y, x]) for y in range(height) for x in range(width)]
    for channel, largest in ((2, 1 - BLUE), (0, 1 - RED)):
        for y in range(0, height, 2):
            for x in range(0, width, 2):
                mean = even[y : y + 2, x : x + 2].mean(axis=(0, 1))
                flat.append(128 + 224 * (mean[channel] - _luma(mean)) / (2 * largest))
    return np.array(flat).reshape(height // 2 * 3, width)


def _luma(rgb: np.ndarray) -> float:
    return RED * rgb[0] + GREEN * rgb[1] + BLUE * rgb[2]
