"""Frame numbers can be read, and change nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import UserError
from common.frame_label import N_DIGITS, corner, digit_coverage, digits_of, draw_number

HEIGHT, WIDTH = 240, 320


def labelled(number: int, value: int = 255) -> np.ndarray:
    picture = np.full((HEIGHT, WIDTH, 3), value, np.uint8)
    draw_number(picture, number)
    return picture


def test_digits_stand_beside_each_other_in_red():
    picture, coverage = labelled(407), digit_coverage(HEIGHT)
    (top, left), (height, width) = corner(HEIGHT), coverage.shape[1:]
    for place, digit in enumerate((4, 0, 7)):
        area = picture[top : top + height, left + place * width : left + (place + 1) * width]
        np.testing.assert_array_equal(area[..., 1], 255 - coverage[digit])
        assert (area[..., 0] == 255).all() and (area[..., 1] == area[..., 2]).all()
        assert (area[..., 1] < 128).any(), "the digit can be seen"
    assert len({coverage[digit].tobytes() for digit in range(10)}) == 10


def test_the_rest_of_the_picture_stays():
    picture, (top, left) = labelled(123456), corner(HEIGHT)
    height, width = digit_coverage(HEIGHT).shape[1:]
    picture[top : top + height, left : left + 6 * width] = 255
    assert (picture == 255).all()


def test_colours_behind_shine_through_where_a_digit_covers_half():
    coverage, (top, left) = digit_coverage(HEIGHT)[8], corner(HEIGHT)
    area = labelled(8, value=100)[top : top + coverage.shape[0], left : left + coverage.shape[1]]
    expected = 100 + coverage[..., None] / 255 * (np.array([255, 0, 0]) - 100)
    assert np.abs(area - expected).max() <= 0.5


def test_numbers_wider_than_the_picture_are_cut():
    picture = np.full((12, 20, 3), 255, np.uint8)
    draw_number(picture, 12345)
    assert (picture < 255).any()


def test_numbers_become_digits_from_the_left():
    assert digits_of(70)[:3] == [7, 0, -1] and len(digits_of(70)) == N_DIGITS
    assert digits_of(None) == [-1] * N_DIGITS
    assert digits_of(10**N_DIGITS - 1) == [9] * N_DIGITS
    with pytest.raises(UserError, match="20 digits"):
        digits_of(10**N_DIGITS)
