"""The frame number in a picture's upper left corner (SPEC 15)."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from common.errors import UserError

RED = (255, 0, 0)
N_DIGITS = 20  # room for
SMALLEST_PX = 10
NUMBERS_HIGH = 24  # numbers that would fit above each other


def digits_of(number: int | None) -> list[float]:
    """N_DIGITS digits from the left, -1 where there is none; UserError if the number has more."""
    digits = "" if number is None else str(number)
    if len(digits) > N_DIGITS:
        raise UserError(f"frame {digits}: its number has over {N_DIGITS} digits; rename the motion's files")
    return [float(digit) for digit in digits] + [-1.0] * (N_DIGITS - len(digits))


def font_size(height: int) -> int:
    """Size of the digits in pixels in a picture of this height."""
    return max(SMALLEST_PX, height // NUMBERS_HIGH)


def corner(height: int) -> tuple[int, int]:
    """Row and column at which the number begins in a picture of this height."""
    size = font_size(height)
    return size // 3, size // 2


@lru_cache(maxsize=8)
def digit_coverage(height: int) -> np.ndarray:
    """What the digits 0 to 9 cover of each pixel in a picture of this height: (10, h, w) uint8, 255 for all of it."""
    font = ImageFont.load_default(font_size(height))
    digits = [str(digit) for digit in range(10)]
    size = math.ceil(max(font.getlength(digit) for digit in digits)), math.ceil(font.getbbox("0123456789")[3])
    images = [Image.new("L", size) for _ in digits]
    for image, digit in zip(images, digits, strict=True):
        ImageDraw.Draw(image).text((0, 0), digit, 255, font)
    return np.stack([np.asarray(image) for image in images])


def draw_number(picture: np.ndarray, number: int) -> None:
    """Draw the number in red into a picture (H, W, 3) uint8; what reaches over its border is left out."""
    coverage = digit_coverage(len(picture))
    top, left = corner(len(picture))
    label = np.concatenate([coverage[int(digit)] for digit in str(number)], axis=1)
    area = picture[top : top + label.shape[0], left : left + label.shape[1]]
    cover = label[: area.shape[0], : area.shape[1], None].astype(np.int32)
    area[...] = (area * (255 - cover) + np.array(RED) * cover + 127) // 255
