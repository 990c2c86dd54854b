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
    n_threads = torch.get_num_threads()
    with _one_at_a_time:
        open_caches()
        numba.set_num_threads(min(n_threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
        try:
            yield
        finally:
            # numba's OpenMP pool sets torch's number too, on its first use, and the last bits of torch's results
            # depend on it.
            if torch.get_num_threads() != n_threads:
                torch.set_num_threads(n_threads)
