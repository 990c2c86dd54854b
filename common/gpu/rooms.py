"""What a CUDA graph has fixed room for: the needs of each replay are compared with the room, on the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_watchers: list[list[Tensor]] = []  # innermost last


@contextmanager
def watched_rooms() -> Iterator[list[Tensor]]:
    """Within it, each use of fixed room adds a flag () to the list: whether it needs more than there is."""
    seen: list[Tensor] = []
    _watchers.append(seen)
    try:
        yield seen
    finally:
        _watchers.pop()


def watch(needed: Tensor, room: float) -> None:
    """Tell the innermost `watched_rooms` how much is needed of a room (one number on the device)."""
    if _watchers:
        _watchers[-1].append((needed > room).reshape(()))


def is_capturing(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
