"""Ending a run on SIGINT (Ctrl-C) and SIGTERM without losing its work."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from common.errors import Stopped

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

logger = logging.getLogger(__name__)


class StopSignals:
    """Turns SIGINT and SIGTERM into `Stopped`: a context manager for the main thread.

    Inside `deferred()` the first signal only sets `requested`, so that the work at hand can be finished and
    saved; a second one stops at once. In other threads nothing is installed.
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._is_deferred = False
        self._earlier: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._earlier = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A block that is ended by `check` alone (or by a second signal)."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def check(self) -> None:
        """Stopped if a signal has come."""
        if self.requested is not None:
            raise Stopped(self.requested)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_first, self.requested = self.requested is None, signal.Signals(number)
        if not (self._is_deferred and is_first):
            raise Stopped(self.requested)
        logger.info("%s: finishing this step, then saving; once more stops at once", self.requested.name)
