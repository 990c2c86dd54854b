"""Compiled CPU kernels (numba): importing one neither compiles it nor touches the disk."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numba

logger = logging.getLogger(__name__)

_unopened: list[Any] = []  # kernels whose disk cache has not been looked at


def kernel(**options: Any) -> Callable[[Callable], Any]:
    """numba's `njit` with a disk cache that waits for `open_caches`."""

    def compiled(function: Callable) -> Any:
        dispatcher = numba.njit(**options)(function)
        _unopened.append(dispatcher)
        return dispatcher

    return compiled


def open_caches() -> None:
    """Let kernels keep their machine code on disk; called before they run.

    numba's own `cache=True` makes folders on import, and fails where none can be written; here such kernels
    are compiled again in each process.
    """
    while _unopened:
        dispatcher = _unopened.pop()
        try:
            dispatcher.enable_caching()
        except RuntimeError as error:
            logger.debug("kernels are not cached: %s", error)
