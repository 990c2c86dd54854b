"""Small constant tensors, made once for each device: copying them there again would stop a CUDA graph's capture."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

Values = tuple[float, ...] | tuple[int, ...] | tuple[tuple[float, ...], ...]


def constant(values: Values, like: Tensor) -> Tensor:
    """The values as a tensor in the dtype and on the device of `like`; not to be changed."""
    return _made(values, like.dtype, like.device)


@lru_cache(maxsize=256)
def _made(values: Values, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
