"""What a command does around its imports so that they take less time; nothing of it changes a result."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from contextlib import suppress
from threading import Thread


def begin(loads_kernels: bool = False) -> None:
    """To be called before all other imports; what is begun for a GPU goes on in a thread.

    loads_kernels: PyTorch's, unless the command line tells that none are needed, or not yet.
    """
    gc.disable()  # what is imported is no garbage: looking for some takes a quarter of the time
    loads_kernels = loads_kernels and not any(map(_needs_no_kernels, sys.argv[1:]))
    Thread(target=_begin_for_gpu, args=(loads_kernels,), name="early start", daemon=True).start()


def imported() -> None:
    """To be called after the imports."""
    gc.freeze()
    gc.enable()


def _needs_no_kernels(word: str) -> bool:
    """Help and CPUs need none; deterministic ones must be asked for before the first is loaded."""
    return word in ("-h", "--help", "cpu", "--device=cpu") or "deterministic" in word


def _begin_for_gpu(loads_kernels: bool = False) -> None:
    """Start CUDA's driver and let Triton hash its library; both are slow and do not hold Python's lock.

    Both last as long as the process. Where the driver, PyTorch or Triton is missing or broken, nothing is done here,
    and what needs them says so.
    """
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")  # as PyTorch sets it
    with suppress(Exception):
        if ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1").cuInit(0) == 0:
            import torch  # waits until the command has imported it, so that Triton's import comes after

            if loads_kernels:
                from common.gpu import preparation

                preparation.begin_loading(torch.device("cuda"))
            from triton.runtime.cache import triton_key

            triton_key()
