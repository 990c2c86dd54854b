"""The photo beside the animation against known answers (SPEC 15)."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from common.photo_panel import photo_panel


@pytest.mark.parametrize(("size", "height"), [((40, 30), 40), ((33, 57), 21), ((10, 7), 101)])
def test_panel_has_the_renders_height_and_the_photos_shape(size, height):
    photo_height, photo_width = size
    panel = photo_panel(torch.rand(3, *size), height)
    assert panel.shape == (3, height, int(photo_width / photo_height * height))


def test_a_black_photo_fills_the_middle_two_thirds_on_white():
    panel = photo_panel(torch.zeros(3, 60, 90), 60)
    assert (panel[:, 11:49, 16:74] == 0).all()
    for border in (panel[:, :9], panel[:, 51:], panel[:, :, :14], panel[:, :, 76:]):
        assert (border == 1).all()


def test_a_ramp_stays_a_ramp_stretched_by_the_box():
    """Output pixel j shows photo column (j - W'/2) 1.5 W / W' + W / 2."""
    width, out_width = 48, 72
    ramp = (torch.arange(width) / width).expand(3, 32, width)
    panel = photo_panel(ramp, 48)
    assert panel.shape[2] == out_width
    source = (torch.arange(out_width) - out_width / 2) * 1.5 * width / out_width + width / 2
    inside = (source >= 0) & (source <= width - 1)
    assert inside.sum() > 40
    assert_close(panel[:, 24, inside], (source[inside] / width).expand(3, -1), rtol=0, atol=1e-5)


def test_a_white_photo_gives_a_white_panel_in_range():
    assert_close(photo_panel(torch.ones(3, 9, 12), 30), torch.ones(3, 30, 40))
    panel = photo_panel(torch.rand(3, 9, 12), 30)
    assert panel.min() >= 0 and panel.max() <= 1
