"""The training step's kernels for GPUs, in Triton: same results as the plain torch functions that they stand in for.

The plain functions ask `is_on` and hand over. Only the fast training step switches the kernels on; they are float32,
wait for nothing on the host and have fixed shapes, so that a step can be replayed as a CUDA graph.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

_is_on: ContextVar[bool] = ContextVar("gpu_kernels", default=False)
_kept: ContextVar[list[Any]] = ContextVar("gpu_kept")


@contextmanager
def kernels(is_on: bool = True) -> Iterator[None]:
    """Within it, CUDA tensors go through the kernels of this package (CPU tensors too in Triton's interpreter)."""
    token, kept = _is_on.set(is_on), _kept.set([])
    try:
        yield
    finally:
        _is_on.reset(token)
        _kept.reset(kept)


def keep(*values: Any) -> None:
    """Hold on to values until the innermost `kernels` is left."""
    if _is_on.get():
        _kept.get().extend(values)


def is_on(tensor: Tensor) -> bool:
    """Whether a function of this tensor shall use the GPU's kernels."""
    if not _is_on.get() or tensor.dtype != torch.float32:
        return False
    return tensor.is_cuda or interprets()


def interprets() -> bool:
    """Whether kernels run in Triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"
