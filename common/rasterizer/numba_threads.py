"""How the numba kernels use threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numba
import torch

from common.kernels import open_caches

_one_at_a_time = threading.Lock()  # numba's fallback thread pool must not be entered twice


@contextmanager
def torch_threads() -> Iterator[None]:
    """Run parallel kernels on as many threads as torch uses, one caller at a time."""
    with _one_at_a_time:
        open_caches()
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
        yield
