"""Runs the golden tests on a GPU although they make their tensors on the CPU (TEST_DEVICE=cuda)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from common import gpu

_MAKERS = (torch.as_tensor, torch.tensor)
_STAYING = (Tensor.cpu, Tensor.to, Tensor.copy_, Tensor.is_pinned, Tensor.pin_memory)
_TO_NUMPY = (Tensor.numpy, Tensor.__array__)


class OnCuda(TorchFunctionMode):
    """New tensors are made on the GPU; where CPU tensors meet those in a call, they are moved there."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _TO_NUMPY:
            return func(args[0].detach().cpu() if args[0].is_cuda else args[0], *args[1:], **kwargs)
        if func not in _STAYING and _has_cuda((args, kwargs)):
            args, kwargs = tree_map(_moved, (args, kwargs))
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type == "cpu" and kwargs.get("device") is None:
            return func(*args, **{**kwargs, "device": "cpu"}).cuda()
        result = func(*args, **kwargs)
        return tree_map(_moved, result) if func in _MAKERS and kwargs.get("device") is None else result


def _has_cuda(values: Any) -> bool:
    found = []
    tree_map(lambda value: found.append(1) if isinstance(value, Tensor) and value.is_cuda else None, values)
    return bool(found)


def _moved(value: Any) -> Any:
    return value.cuda() if isinstance(value, Tensor) and not value.is_cuda and value.numel() else value


@contextmanager
def on_cuda() -> Iterator[None]:
    """Within it, torch computes on the GPU, through the kernels of the fast training step."""
    torch.set_default_device("cuda")
    allows_tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # the golden arrays have float32 accuracy
    try:
        with OnCuda(), gpu.kernels():
            yield
    finally:
        torch.set_default_device(None)
        torch.backends.cudnn.allow_tf32 = allows_tf32
