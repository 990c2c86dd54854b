"""What a process needs from a GPU before its first step, made in threads while the command reads its data."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from common.in_thread import in_thread

logger = logging.getLogger(__name__)


@cache
def begin_loading(device: torch.device) -> Future[None]:
    """Begin to make the device's context and to load PyTorch's libraries and kernels, unless that was done before.

    A program that ends meanwhile waits for it, up to half a second.
    """
    return in_thread(_load_kernels, device)


@cache
def begin(device: torch.device) -> Future[bool]:
    """Begin all of it; the result, once all is made, is whether Triton works on the device.

    The process keeps what is made, Triton's first kernel included.
    """
    return in_thread(_try_triton, device, begin_loading(device))


def _load_kernels(device: torch.device) -> None:
    """Use PyTorch's functions of a step once on next to nothing: each loads its kernels or library on first use.

    All together that takes half a second. One that is missing here is loaded by the first step, and what fails
    here fails there too, with its message.
    """
    floats = torch.ones(4, 4, device=device)
    integers = torch.ones(4, 4, dtype=torch.int64, device=device)
    index = torch.zeros(4, dtype=torch.int64, device=device)
    large = torch.ones(128, 128, device=device)  # small matrices and lists have kernels of their own
    torch.mm(large, large)
    torch.addmm(large[0], large, large)
    large.to(torch.int32).reshape(-1).sort(stable=True)
    for x in (floats, integers):
        for function in _FUNCTIONS:
            function(x)
        x.index_copy(0, index, x).index_add(0, index, x).index_select(0, index)
        torch.where(x >= 1, x, x).sort(stable=True)
    for function in _FLOAT_FUNCTIONS:
        function(floats)
    floats[floats > 2] = 0.0
    torch._foreach_sub_([floats], [floats])
    torch._foreach_add_([floats], 1.0)
    parameter = floats.clone().requires_grad_()
    (torch.sigmoid(parameter) + torch.relu(parameter) + F.normalize(parameter)).sum().backward()
    F.conv2d(floats[None, None], floats[None, None, :3, :3], padding=1)


_FUNCTIONS: tuple[Callable[[Tensor], object], ...] = (
    lambda x: x + x - x * 2,
    lambda x: -x.abs(),
    lambda x: x % 2,
    lambda x: x // 2,
    lambda x: torch.maximum(x, x),
    lambda x: x.clamp(min=0),
    lambda x: x.sum(0),
    lambda x: x.amax(0),
    lambda x: x.amin(0),
    lambda x: x.argmax(0),
    lambda x: x.cumsum(0),
    lambda x: (x != x).any(0),
    lambda x: torch.cat([x, x]).flip(0).roll(1),
    lambda x: x.nonzero(),
)
_FLOAT_FUNCTIONS: tuple[Callable[[Tensor], object], ...] = (
    lambda x: torch.mv(x, x[0]),
    lambda x: torch.bmm(x[None], x[None]),
    lambda x: torch.linalg.vector_norm(x, dim=1),
    lambda x: torch.linalg.cross(x[:, :3], x[:, :3]),
    lambda x: x.exp().log() ** 2,
    lambda x: x.sin() + x.cos() + torch.atan2(x, x),
    lambda x: x.sqrt() / x.floor(),
    lambda x: x.mean(0),
    lambda x: torch.lerp(x, x, 0.5),
    lambda x: torch.take_along_dim(x, x.to(torch.int64) % 2, 0),
)


def _try_triton(device: torch.device, loaded: Future[None]) -> bool:
    from common.fast_step import is_possible

    works = is_possible(device)
    if (error := loaded.exception()) is not None:
        logger.debug("kernels could not be loaded ahead: %s", error)
    return works
