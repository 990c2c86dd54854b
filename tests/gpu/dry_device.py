"""A GPU that is not there: kernels are compiled for it as their callers launch them, but do not run.

What they would have written stays unwritten, so callers must not look at it; code that a CUDA graph can capture
does not, because it takes nothing back to the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from common import gpu
from common.engine import posing_triton
from common.gpu import crop, rooms
from common.rasterizer import interface, triton_images, triton_loader

Capability = tuple[int, int]
MULTIPROCESSORS = 132


@dataclass
class Compiled:
    """The kernels that were launched, compiled for one target."""

    by_name: dict[str, dict[str, Any]] = field(default_factory=dict)  # kernel -> hash -> compiled kernel

    @property
    def names(self) -> set[str]:
        """`module.kernel` of all of them."""
        return set(self.by_name)


class _Driver:
    """As much of Triton's driver as compiling needs."""

    def __init__(self, capability: Capability) -> None:
        self.target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return self.target.arch  # Triton keeps compiled kernels by device

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def dry_device(capability: Capability, cache: Path) -> Iterator[Compiled]:
    """Within it, CPU tensors are taken for those of a GPU of this compute capability, in the middle of a capture."""
    compiled = Compiled()
    run = JITFunction.run

    def compile_only(self: JITFunction, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        assert all(1 <= n < 2**31 for n in grid), (self.fn.__name__, grid)
        kernel = run(self, *args, grid=grid, warmup=True, **options)
        name = f"{self.fn.__module__}.{self.fn.__name__}"
        compiled.by_name.setdefault(name, {})[kernel.hash] = kernel
        return kernel

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(cache))
        patch.setattr(JITFunction, "run", compile_only)
        patch.setattr(gpu, "is_on", lambda tensor: gpu._is_on.get() and tensor.dtype == torch.float32)
        for module in (rooms, crop):
            patch.setattr(module, "is_capturing", lambda device: True)
        patch.setattr(triton_images, "_precision", lambda device: "tf32" if capability >= (8, 0) else "ieee")
        patch.setattr(triton_images, "_n_multiprocessors", lambda device: MULTIPROCESSORS)
        patch.setattr(posing_triton, "_has_matrix_units", lambda device: capability >= (8, 0))
        patch.setitem(interface._default_of_device, "cpu", "triton")
        patch.setattr(triton_loader, "_interprets", lambda: True)
        patch.setattr(triton_loader, "_works", lambda splats: True)
        patch.setattr(type(triton.runtime.driver), "active", _Driver(capability))
        yield compiled
