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


def speed_of(
    frames: Iterable[T], use: Callable[[T], object], finish: Callable[[], object] = lambda: None
) -> Speed:
    """Time to make and use all frames and to finish, but for the first frame, which warms up."""
    remaining = iter(frames)
    use(next(remaining))
    start, n = time.perf_counter(), 0
    for frame in remaining:
        use(frame)
        n += 1
    finish()
    return Speed(n, time.perf_counter() - start)


def repeated(frames: Iterable[T], at_least: int) -> Iterator[T]:
    """All frames, over and over until there were `at_least` of them."""
    kept = list(frames)
    for i in range(max(at_least, len(kept))):
        yield kept[i % len(kept)]
