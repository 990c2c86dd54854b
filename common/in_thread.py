"""Work that goes on beside the caller."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def in_thread(function: Callable[..., T], *args: Any) -> Future[T]:
    """Begin a call in a thread of its own; the result is there once it is asked for, and so is its error.

    A program that ends meanwhile waits for it.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix=getattr(function, "__name__", "call"))
    future = thread.submit(function, *args)
    thread.shutdown(wait=False)
    return future
