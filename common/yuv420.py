"""Pictures as video encoders take them: YUV 4:2:0 of BT.709, luma 16 to 235, in one array of planes.

The planes (3 / 2 H, W) uint8 hold Y (H, W), then U and V (H / 2, W / 2), row after row. A chroma value is of the
mean colour of 2 x 2 pixels. An odd height or width gets its last row or column twice.
"""

from __future__ import annotations

import numpy as np

BITS = 16  # of the weights behind the binary point
_RED, _BLUE = 0.2126, 0.0722  # ITU-R BT.709-6, item 3.2
_LUMA = (_RED, 1 - _RED - _BLUE, _BLUE)
_CB, _CR = (
    tuple(((i == channel) - k) / (2 * (1 - _LUMA[channel])) for i, k in enumerate(_LUMA))
    for channel in (2, 0)
)


def _whole(row: tuple[float, ...], levels: int) -> tuple[int, ...]:
    return tuple(round(value * levels / 255 * 2**BITS) for value in row)


Y_WEIGHTS, U_WEIGHTS, V_WEIGHTS = (
    _whole(_LUMA, 219),
    _whole(_CB, 224),
    _whole(_CR, 224),
)  # of red, green, blue
Y_ZERO, UV_ZERO = 16, 128


def planes_size(height: int, width: int) -> tuple[int, int]:
    """Shape of the planes of a picture (height, width)."""
    return 3 * ((height + 1) // 2), width + width % 2


def split_planes(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Y (H, W), U and V (H / 2, W / 2) as views into contiguous planes."""
    height, width = planes.shape[0] // 3 * 2, planes.shape[1]
    luma, u, v = np.split(planes.reshape(-1), [height * width, height * width * 5 // 4])
    return luma.reshape(height, width), u.reshape(height // 2, -1), v.reshape(height // 2, -1)
