"""Rectangles against known answers."""

from __future__ import annotations

import numpy as np
import pytest

from common.rectangle import Rectangle


def test_rectangle_around_points_touches_the_outermost_ones():
    points = np.array([[3.0, 8.0], [5.0, 2.0], [4.0, 4.0]])
    assert Rectangle.around(points) == (3, 2, 2, 6)
    with pytest.raises(ValueError, match="no points"):
        Rectangle.around(points[:0])


def test_extended_rectangle_keeps_its_centre_and_has_the_asked_shape():
    wide = Rectangle(10, 20, 40, 10).extended(1.5, aspect_ratio=2.0)
    assert wide == (0, 10, 60, 30)
    narrow = Rectangle(10, 20, 40, 100).extended(1.5, aspect_ratio=2.0)
    assert narrow == (-120, -5, 300, 150)


@pytest.mark.parametrize("aspect_ratio", [0.3, 1.0, 7.0])
def test_rectangle_of_an_aspect_ratio_holds_the_one_it_was_made_of_and_no_more_than_it_must(aspect_ratio):
    box = Rectangle(-3.0, 5.0, 17.0, 11.0)
    grown = box.extended(aspect_ratio=aspect_ratio)
    assert grown.width / grown.height == pytest.approx(aspect_ratio)
    assert grown.x <= box.x and grown.y <= box.y
    assert grown.width >= box.width and grown.height >= box.height
    assert grown.width == box.width or grown.height == box.height


def test_nothing_asked_for_changes_nothing():
    assert Rectangle(1, 2, 3, 4).extended() == (1, 2, 3, 4)
