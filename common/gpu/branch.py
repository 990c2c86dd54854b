"""Work beside the main stream: small kernels fill the gaps that large ones leave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from common import gpu


@lru_cache(maxsize=16)
def _stream(device: torch.device, number: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


class Branch:
    """Ops inside `with branch.aside():` run on a stream of their own; after `join` the main stream has their results.

    Without the GPU's kernels, or in Triton's interpreter, everything stays in its order. What crosses between
    the streams must be given to `gpu.keep`, so that its memory is not used again too early.
    """

    def __init__(self, like: Tensor, number: int) -> None:
        self.is_used = gpu.is_on(like) and like.is_cuda
        self.stream = _stream(like.device, number) if self.is_used else None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Run what follows after all that the current stream has been given so far, but beside what comes next."""
        if self.stream is None:
            yield
            return
        self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))
        with torch.cuda.stream(self.stream):
            yield

    def join(self) -> None:
        """Let the current stream wait for the branch."""
        if self.stream is not None:
            torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)
