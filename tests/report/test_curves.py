"""Loss curves are read as they were logged, and drawn within their charts."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from common.report.curves import HEIGHT, LEFT, RIGHT, TOP, WIDTH, Curve, draw_curve, read_curves


def write_log(folder: Path, steps: range, offset: float) -> None:
    writer = SummaryWriter(str(folder))
    for step in steps:
        writer.add_scalar("loss/total", offset + step, step)
        if step % 2:
            writer.add_scalar("loss/img", -float(step), step)
        writer.add_scalar("something/else", 1.0, step)
    writer.close()


def test_terms_come_back_by_name_and_step_with_the_total_first(tmp_path):
    write_log(tmp_path, range(10), 0.5)
    total, img = read_curves(tmp_path)
    assert (total.name, img.name) == ("total", "img")
    np.testing.assert_array_equal(total.steps, np.arange(10))
    np.testing.assert_allclose(total.values, np.arange(10) + 0.5)
    np.testing.assert_array_equal(img.steps, [1, 3, 5, 7, 9])


def test_steps_that_were_done_again_replace_those_of_before(tmp_path, monkeypatch):
    write_log(tmp_path, range(10), 0.0)
    monkeypatch.setattr("time.time", lambda: 4e9)  # a later file
    write_log(tmp_path, range(6, 12), 100.0)
    total = read_curves(tmp_path)[0]
    np.testing.assert_array_equal(total.steps, np.arange(12))
    np.testing.assert_allclose(total.values, [*range(6), *range(106, 112)])


def test_no_log_is_no_curves(tmp_path):
    assert read_curves(tmp_path / "none") == [] and read_curves(tmp_path) == []


def points(svg: str, shape: str) -> np.ndarray:
    found = re.search(rf'<{shape} [^>]*points="([^"]*)"', svg)
    assert found
    return np.array([[float(v) for v in pair.split(",")] for pair in found[1].split()])


@pytest.mark.parametrize("values", [np.linspace(3, 1, 1000), np.geomspace(1e4, 1e-3, 1000), np.zeros(5)])
def test_line_goes_from_the_first_to_the_last_step_and_falls_as_the_values_do(values):
    svg = draw_curve(Curve("a", np.arange(len(values)), values), len(values) - 1)
    line = points(svg, "polyline")
    assert line[0, 0] == pytest.approx(LEFT, abs=2) and line[-1, 0] == pytest.approx(WIDTH - RIGHT, abs=2)
    assert (line >= -0.1).all() and (line <= [WIDTH, HEIGHT]).all()
    assert (np.diff(line[:, 1]) >= 0).all()  # down the page
    if values[0] > 0:
        assert line[0, 1] < TOP + 5


def test_values_that_are_not_finite_are_left_out_of_the_chart():
    svg = draw_curve(Curve("<a>", np.arange(4), np.array([1.0, np.nan, np.inf, 2.0])), 3)
    assert "nan" not in svg and "inf" not in svg and "<a>" not in svg
    assert len(points(svg, "polyline")) == 2
