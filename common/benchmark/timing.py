"""Timing calls on a CPU or a GPU, and the facts of the machine they ran on."""

from __future__ import annotations

import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

WARM_UP = 10
MIB = 2**20


@dataclass(frozen=True)
class Timer:
    """How calls are timed: on which device, and how many of each."""

    device: torch.device
    repeats: int

    @property
    def is_cuda(self) -> bool:
        """Whether calls are timed by the GPU's own clock and can be captured."""
        return self.device.type == "cuda"

    def median_ms(self, call: Callable[[], object]) -> float:
        """Median time of a call, after warming up."""
        for _ in range(min(self.repeats, WARM_UP)):
            call()
        if not self.is_cuda:
            return statistics.median(self._seconds(call) for _ in range(self.repeats)) * 1e3
        events = [
            (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            for _ in range(self.repeats)
        ]
        torch.cuda.synchronize(self.device)
        for begin, end in events:
            begin.record()
            call()
            end.record()
        torch.cuda.synchronize(self.device)
        return statistics.median(begin.elapsed_time(end) for begin, end in events)

    @staticmethod
    def _seconds(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    def captured(self, call: Callable[[], object]) -> Callable[[], None] | None:
        """The call as a CUDA graph; None if it cannot be captured."""
        if not self.is_cuda:
            return None
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
        torch.cuda.current_stream(self.device).wait_stream(side)
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                call()
        except RuntimeError:
            torch.cuda.synchronize(self.device)
            return None
        return graph.replay

    def captured_ms(self, call: Callable[[], object]) -> float | None:
        """Median time of the call as a CUDA graph; None if it cannot be captured."""
        replay = self.captured(call)
        return None if replay is None else self.median_ms(replay)


def machine(device: torch.device) -> dict[str, str]:
    """What the figures were measured on."""
    facts = {
        "processor": f"{_processor()}, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts |= {package: _version_of(package) for package in ("triton", "gsplat")}
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version_of(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def host_peak_mib() -> float:
    """Most memory that this process ever held."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (MIB if sys.platform == "darwin" else 1024)
