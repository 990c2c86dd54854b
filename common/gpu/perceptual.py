"""LPIPS for training on a GPU: bf16 channels-last convolutions, distances in float32, no graph kept (SPEC 12).

The gradient to an image is found together with its distance, a few images at a time, so that the features of the
others never lie in memory. Targets that several images are compared with have their features computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from common.gpu import perceptual_kernels as kernels
from common.perceptual import Lpips

PIXELS = 16  # of a feature map to a program


class HalfLpips(nn.Module):
    """LPIPS with the weights of `Lpips`; differentiable in the first images only."""

    def __init__(self, exact: Lpips, at_once: int = 3, dtype: torch.dtype = torch.bfloat16) -> None:
        """at_once: how many images go through the network together; fewer need less memory."""
        super().__init__()
        self.taps, self.min_size_px = exact.taps, exact.min_size_px
        self.at_once, self.dtype = at_once, dtype
        self.layers: list[tuple[Tensor, Tensor, Any] | Any] = []
        for layer in exact.trunk:
            if isinstance(layer, nn.Conv2d):
                weight = layer.weight.detach().to(dtype).contiguous(memory_format=torch.channels_last)
                self.layers.append((weight, layer.bias.detach().to(dtype), layer))  # type: ignore[union-attr]
            else:
                self.layers.append(layer)
        self.heads = [head.detach() for head in exact.heads]
        self.shift, self.spread = exact.shift, exact.spread

    def features(self, images: Tensor) -> list[Tensor]:
        """Features (B, C, h, w) at the compared layers, not normalised, of images (B, 3, H, W) in [0, 1]."""
        x = (2 * images - 1 - self.shift) / self.spread
        x = x.to(self.dtype, memory_format=torch.channels_last)
        outputs = []
        for index, layer in enumerate(self.layers):
            if isinstance(layer, tuple):
                weight, bias, convolution = layer
                x = F.conv2d(x, weight, bias, convolution.stride, convolution.padding)
            elif isinstance(layer, nn.MaxPool2d):
                x = F.max_pool2d(x, layer.kernel_size, layer.stride)
            else:
                x = F.relu(x, inplace=True)
            if index in self.taps:
                outputs.append(x)
        return outputs

    def forward(self, x: Tensor, y: Tensor, target: Sequence[int] | None = None) -> Tensor:
        """LPIPS (B,) of images x (B, 3, H, W) and y[target[b]]; y (T, 3, H, W), without `target` one for each."""
        assert min(x.shape[2:]) >= self.min_size_px, (x.shape, self.min_size_px)
        result: Tensor = _Distance.apply(x, y, tuple(target or range(len(x))), self)  # type: ignore[no-untyped-call]
        return result

    def distance(self, x: Tensor, targets: list[Tensor]) -> Tensor:
        """Distances (B,) of images to features of as many targets."""
        total = x.new_zeros(len(x))
        for head, a, b in zip(self.heads, self.features(x), targets, strict=True):
            total = total + feature_distance(a, b, head)
        return total


class _Distance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, target: tuple[int, ...], model: HalfLpips) -> Tensor:
        assert not ctx.needs_input_grad[1], "the second images are constants"
        gradient = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        distances: list[Tensor | None] = [None] * len(x)
        for one in dict.fromkeys(target):
            with torch.no_grad():
                features = model.features(y[one : one + 1])
            mine = [b for b, which in enumerate(target) if which == one]
            for start in range(0, len(mine), model.at_once):
                part = mine[start : start + model.at_once]
                with torch.enable_grad():
                    images = torch.stack([x[b] for b in part]).requires_grad_(gradient is not None)
                    distance = model.distance(images, features)
                    if gradient is not None:
                        (slope,) = torch.autograd.grad(distance.sum(), images)
                        for i, b in enumerate(part):
                            gradient[b].copy_(slope[i])
                for b, value in zip(part, distance.detach(), strict=True):
                    distances[b] = value
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return torch.stack([value for value in distances if value is not None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad[:, None, None, None], None, None, None


def feature_distance(a: Tensor, b: Tensor, head: Tensor) -> Tensor:
    """Mean over pixels (B,) of the weighted squared difference of unit features a (B, C, h, w) and b (1, C, h, w)."""
    result: Tensor = _FeatureDistance.apply(a, b, head)  # type: ignore[no-untyped-call]
    return result


class _FeatureDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, head: Tensor) -> Tensor:
        a, b = (t.contiguous(memory_format=torch.channels_last) for t in (a, b))
        n, width, *size = a.shape
        n_pixels = size[0] * size[1]
        n_blocks = -(-n_pixels // PIXELS)
        sums = head.new_empty(n, n_blocks)
        kernels.distance[(n_blocks, n)](a, b, head, sums, n_pixels, n_blocks, C=width, BLOCK=PIXELS)
        ctx.save_for_backward(a, b, head)
        return sums.sum(1) / n_pixels

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        a, b, head = ctx.saved_tensors
        n, width, *size = a.shape
        n_pixels = size[0] * size[1]
        d_a = torch.empty_like(a)
        kernels.distance_backward[(-(-n_pixels // PIXELS), n)](
            a, b, head, grad.contiguous(), d_a, n_pixels, C=width, BLOCK=PIXELS
        )
        return d_a, None, None
