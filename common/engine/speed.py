"""How fast frames come out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Speed:
    """Frames and the time they took after a warm-up."""

    n_frames: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Frames a second; 0 if there were none."""
        return self.n_frames / self.seconds if self.seconds > 0 else 0.0

    @property
    def milliseconds(self) -> float:
        """Milliseconds a frame."""
        return 1e3 * self.seconds / max(self.n_frames, 1)


def speed_of(frames: Iterable[T], use: Callable[[T], object], warm_up: int = 1) -> Speed:
    """Time to make and use all frames but the first ones, which warm up."""
    remaining = iter(frames)
    for _, frame in zip(range(warm_up), remaining, strict=False):
        use(frame)
    start, n = time.perf_counter(), 0
    for frame in remaining:
        use(frame)
        n += 1
    return Speed(n, time.perf_counter() - start)


def repeated(frames: Iterable[T], at_least: int, at_most: int | None = None) -> Iterator[T]:
    """All frames, over and over until there were `at_least` of them, and no more than `at_most`."""
    kept = list(frames)
    n = max(at_least, len(kept))
    for i in range(n if at_most is None else min(n, at_most)):
        yield kept[i % len(kept)]
