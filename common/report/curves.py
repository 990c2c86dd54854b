"""Loss curves: read from a training's TensorBoard files, and drawn as SVG."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

N_BINS = 150  # points of a drawn curve
LOG_RATIO = 30.0  # positive curves that span more than this are drawn on a logarithmic axis
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 320, 150, 58, 8, 8, 20  # pixels
PREFIX = "loss/"


@dataclass(frozen=True)
class Curve:
    """One loss term over the steps at which it was computed."""

    name: str
    steps: np.ndarray  # (T,) int64, increasing
    values: np.ndarray  # (T,) float64


def read_curves(folder: Path) -> list[Curve]:
    """All loss terms in a folder's TensorBoard files, the total first; none if there are no files.

    Where a run went on from an earlier step, the steps it did again replace those of before.
    """
    if not folder.is_dir():
        return []
    # Late: importing it is slow.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.WARNING)  # it tells where files end
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    curves = []
    for tag in events.Tags()["scalars"]:
        if tag.startswith(PREFIX):
            entries = {event.step: event.value for event in events.Scalars(tag)}
            steps = np.array(sorted(entries))
            curves.append(Curve(tag.removeprefix(PREFIX), steps, np.array([entries[i] for i in steps])))
    return sorted(curves, key=lambda curve: (curve.name != "total", curve.name))


@dataclass(frozen=True)
class _Binned:
    """A curve's lowest, mean and highest values in bins of steps."""

    steps: np.ndarray  # (B,) middle of the bins
    low: np.ndarray
    mean: np.ndarray
    high: np.ndarray

    @staticmethod
    def of(curve: Curve) -> _Binned:
        parts = np.array_split(np.arange(len(curve.steps)), min(N_BINS, len(curve.steps)))
        values = [curve.values[part] for part in parts]
        return _Binned(
            np.array([curve.steps[part].mean() for part in parts]),
            np.array([v.min() for v in values]),
            np.array([v.mean() for v in values]),
            np.array([v.max() for v in values]),
        )


def draw_curve(curve: Curve, last_step: int) -> str:
    """An SVG chart up to `last_step`: the mean as a line, the range of single steps as a band behind it."""
    is_finite = np.isfinite(curve.values)
    curve = Curve(curve.name, curve.steps[is_finite], curve.values[is_finite])
    if not len(curve.steps):
        return f"<p>{escape(curve.name)}: no finite value</p>"
    binned = _Binned.of(curve)
    is_log = binned.low.min() > 0 and binned.high.max() / binned.low.min() > LOG_RATIO
    low, high = _range(binned, is_log)

    def x(steps: np.ndarray) -> np.ndarray:
        return LEFT + (WIDTH - LEFT - RIGHT) * steps / max(last_step, 1)

    def y(values: np.ndarray) -> np.ndarray:
        scaled = np.log10(values) if is_log else values
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - scaled) / (high - low)

    band = [*zip(x(binned.steps), y(binned.high), strict=True)]
    band += [*zip(x(binned.steps), y(binned.low), strict=True)][::-1]
    line = zip(x(binned.steps), y(binned.mean), strict=True)
    marks = "".join(_mark(value, low, high, is_log) for value in _marks(low, high, is_log))
    title = f"{curve.name}: first {curve.values[0]:.4g}, last {binned.mean[-1]:.4g}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"><title>{escape(title)}</title>{marks}'
        f'<polygon class="band" points="{_points(band)}"/><polyline class="line" points="{_points(line)}"/>'
        f'<text x="{LEFT}" y="{HEIGHT - 4}">0</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">step {last_step}</text></svg>'
    )


def _range(binned: _Binned, is_log: bool) -> tuple[float, float]:
    low, high = float(binned.low.min()), float(binned.high.max())
    if is_log:
        return math.log10(low), math.log10(high)
    low = min(low, 0.0)
    return low, high if high > low else low + 1.0


def _marks(low: float, high: float, is_log: bool) -> list[float]:
    """Values at which the axis is labelled, in the axis' scale."""
    if is_log and math.floor(high) - math.ceil(low) >= 1:
        decades = range(math.ceil(low), math.floor(high) + 1)
        return [float(d) for d in decades][:: max(1, len(decades) // 4)]
    return [low, (low + high) / 2, high]


def _mark(value: float, low: float, high: float, is_log: bool) -> str:
    height = TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)
    shown = 10**value if is_log else value
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>'
        f'<text x="{LEFT - 4}" y="{height + 3.5:.1f}" text-anchor="end">{shown:.3g}</text>'
    )


def _points(pairs: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in pairs)
