"""Running out of memory, told in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from common.errors import UserError, is_out_of_gpu_memory, is_out_of_memory

_ADVICE = (
    "lower --body.n_subdivisions, --avatar.triplane_resolution or the images' size, "
    "or leave out LPIPS (--no_lpips)"
)


@contextmanager
def memory_errors_explained(device: torch.device) -> Iterator[None]:
    """Turn an out-of-memory error of torch or Python into a UserError that says what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        if is_out_of_gpu_memory(error):
            raise UserError(
                f"out of GPU memory{_use(device)}: end other programs on this GPU, give --low_memory, {_ADVICE}"
            ) from error
        raise UserError(f"out of memory: end other programs, {_ADVICE}") from error


def _use(device: torch.device) -> str:
    if device.type != "cuda" or not torch.cuda.is_available():
        return ""
    free, total = torch.cuda.mem_get_info(device)
    used = torch.cuda.max_memory_allocated(device)
    gib = 2**30
    return f" ({used / gib:.1f} GiB used here, {free / gib:.1f} of {total / gib:.1f} GiB free)"
