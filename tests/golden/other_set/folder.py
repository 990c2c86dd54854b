"""The directory that is being made, its sizes, and the one whose inputs it is drawn from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sizes:
    """What the tests may not depend on; all differ from the published set's."""

    height: int = 72  # wider than high
    width: int = 104
    patch: int = 40
    texture: int = 56
    triplane: int = 20
    n_split_faces: int = 37  # of the body; each adds one vertex and two faces
    fields: tuple[tuple[int, int, float, float], ...] = (  # grid, iterations, threshold, expansion
        (26, 100, 0.02, 0.3),
        (26, 20, 0.02, 0.3),
        (14, 5, 0.06, 0.15),
    )
    # Frames: of each split, index -> frame of the source it is drawn from, whether it is listed
    frames: tuple[tuple[str, tuple[tuple[int, int], ...], tuple[int, ...]], ...] = (
        ("captured", ((0, 0), (2, 0)), (0, 2)),
        ("generated_0", ((1, 0), (3, 1), (6, 2), (7, 5), (10, 5)), (6, 1, 10, 7)),
        ("generated_1", ((0, 1), (8, 4)), (8, 0)),
        ("test", ((1, 0), (5, 3), (12, 3)), (1, 5, 12)),
    )
    motion_frames: tuple[tuple[int, int], ...] = ((0, 0), (2, 1), (9, 10), (11, 0))
    motion_height: int = 60
    motion_width: int = 92
    evaluated: tuple[tuple[int, tuple[int, int, int, int]], ...] = (
        (3, (5, 0, 50, 64)),
        (11, (20, 10, 61, 70)),
        (4, (0, 30, 33, 48)),
    )
    full_frame: tuple[int, int] = (80, 96)


class OtherSet:
    """Reads and writes arrays of the directory being made; `source` has those they are drawn from."""

    def __init__(self, source: Path, path: Path, seed: int) -> None:
        self.source, self.path, self.sizes = source, path, Sizes()
        self.rng = np.random.default_rng(seed)

    def read(self, name: str) -> dict[str, np.ndarray]:
        """All arrays of a file that was made."""
        with np.load(self.path / name, allow_pickle=False) as arrays:
            return dict(arrays)

    def drawn_from(self, name: str) -> dict[str, np.ndarray]:
        """All arrays of a file of the source."""
        with np.load(self.source / name, allow_pickle=False) as arrays:
            return dict(arrays)

    def locate(self, name: str) -> Path:
        """Path of a file that was made."""
        return self.path / name

    def write(self, name: str, **arrays: Any) -> None:
        """Floats become float32."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        np.savez(target, **{key: plain(value) for key, value in arrays.items()})

    def write_json(self, name: str, content: Any) -> None:
        """Nested lists and dicts of numbers and text."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(content))

    def normal(self, *shape: int, size: float = 1.0) -> np.ndarray:
        """Normal draws of that standard deviation, rounded to float32."""
        return (self.rng.normal(size=shape) * size).astype(np.float32)

    def uniform(self, *shape: int) -> np.ndarray:
        """Draws from [0, 1), rounded to float32."""
        return self.rng.uniform(size=shape).astype(np.float32)


def plain(value: Any) -> np.ndarray:
    """As stored: a C-ordered array, floats as float32."""
    array = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
    return np.array(array, dtype=np.float32 if array.dtype.kind == "f" else None, order="C")


def double(value: np.ndarray) -> Tensor:
    """A float64 tensor."""
    return torch.from_numpy(np.ascontiguousarray(value)).double()
