"""LPIPS for training on a GPU: bf16 channels-last convolutions, distances in float32, no autograd inside (SPEC 12).

The gradient to an image is found together with its distance, a few images at a time, so that the features of the
others never lie in memory. Targets that several images are compared with go through the network once. Where the
images of a kind of frames can only differ in a part, only what matters for it is computed (`crop`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from common.gpu import perceptual_kernels as kernels
from common.gpu.crop import Crop
from common.perceptual import Lpips
from common.perceptual_crop import Box, Size

NUMBERS = 1024  # of a feature map to a program
ELEMENTS = 4096
MOST_IMAGES = 64  # targets at a time
INPUT_CHANNELS = 8  # tensor cores want multiples of 8; those after the first three are 0


@dataclass(frozen=True)
class _Block:
    """Convolutions, each with ReLU, between two poolings; the last one's output is compared."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    head: Tensor


@dataclass(frozen=True)
class _Remembered:
    """Features of a constant image, which is kept so that no other takes its place in memory."""

    image: Tensor
    part: Box
    features: list[Tensor]


class HalfLpips(nn.Module):
    """LPIPS with VGG16 and the weights of `Lpips`; differentiable in the first images only."""

    def __init__(self, exact: Lpips, at_once: int = 8, dtype: torch.dtype = torch.bfloat16) -> None:
        """at_once: how many images go through the network together; fewer need less memory."""
        super().__init__()
        self.min_size_px, self.at_once, self.dtype = exact.min_size_px, at_once, dtype
        self.blocks: list[_Block] = []
        self.crop: Crop | None = None  # of images of its size; all others are looked at as a whole
        self.remembered: dict[int, _Remembered] = {}  # by the image's address
        if exact.sight is None:
            raise ValueError("only VGG16 is supported")
        self.sight = exact.sight
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        for index, layer in enumerate(exact.trunk):
            if isinstance(layer, nn.Conv2d):
                weight = layer.weight.detach().to(dtype)
                if weight.shape[1] < INPUT_CHANNELS:
                    weight = F.pad(weight, (0, 0, 0, 0, 0, INPUT_CHANNELS - weight.shape[1]))
                weights.append(weight.contiguous(memory_format=torch.channels_last))
                assert layer.bias is not None
                biases.append(layer.bias.detach().to(dtype))
            elif index in exact.taps:
                head = exact.heads[len(self.blocks)].detach()
                self.blocks.append(_Block(tuple(weights), tuple(biases), head))
                weights, biases = [], []
        self.shift, self.spread = exact.shift, exact.spread
        self.numbers = torch.arange(MOST_IMAGES, dtype=torch.int32, device=self.shift.device)

    def forward(self, x: Tensor, y: Tensor | Sequence[Tensor], target: Sequence[int] | None = None) -> Tensor:
        """LPIPS (B,) of images x (B, 3, H, W) and y[target[b]], each (3, H, W); without `target` one for each."""
        assert min(x.shape[2:]) >= self.min_size_px, (x.shape, self.min_size_px)
        which = tuple(target or range(len(x)))
        if self.crop is not None and self.crop.size == x.shape[2:] and not self.crop.is_whole:
            self.crop.check(x, torch.stack([y[one] for one in which]))
        result: Tensor = _Distance.apply(x, self, which, *y)  # type: ignore[no-untyped-call]
        return result

    def part(self, image: Tensor) -> Box:
        """The part of images (..., H, W) that is looked at."""
        size = (image.shape[-2], image.shape[-1])
        return self.crop.part if self.crop is not None and self.crop.size == size else Box.whole(size)

    def remember(self, images: Sequence[Tensor]) -> None:
        """Compute the features of images (3, H, W) that stay as and where they are, once."""
        for image in images:
            part = self.part(image)
            features = self.features(part.cut(image)[None])
            self.remembered[image.data_ptr()] = _Remembered(image, part, features)

    def known(self, image: Tensor) -> list[Tensor] | None:
        """Features of the part of an image that is looked at, if they are remembered."""
        found = self.remembered.get(image.data_ptr())
        if found is not None and found.part != self.part(image):  # it has grown
            self.remember([found.image])
            found = self.remembered[image.data_ptr()]
        return None if found is None else found.features

    def input(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) as the network takes them."""
        x = F.pad((2 * images - 1 - self.shift) / self.spread, (0, 0, 0, 0, 0, INPUT_CHANNELS - 3))
        return x.to(self.dtype, memory_format=torch.channels_last)

    def features(self, images: Tensor) -> list[Tensor]:
        """Features (B, C, h, w) of images (B, 3, H, W) at the compared layers, not of unit length."""
        return [outputs[-1] for outputs in self._outputs(images, only_last=True)]

    def _outputs(self, images: Tensor, only_last: bool = False) -> list[list[Tensor]]:
        """The output of every ReLU, or of each block's last one, block by block."""
        x, outputs = self.input(images), []
        for i, block in enumerate(self.blocks):
            if i > 0:
                x = _pooled(x)
            of_block: list[Tensor] = []
            for weight, bias in zip(block.weights, block.biases, strict=True):
                x = _convolution_relu(x, weight, bias)
                of_block = [x] if only_last else [*of_block, x]
            outputs.append(of_block)
        return outputs

    def distance_and_gradient(
        self, images: Tensor, targets: list[Tensor], which: Tensor, size: Size, with_gradient: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Distances (B,) of images to features targets[i][which[b]], and their gradient by the images.

        size: of the images of which these are the part that is looked at.
        """
        outputs = self._outputs(images)
        n_features = [self.sight.n_features(level, size) for level in range(len(self.blocks))]
        total = images.new_zeros(len(images))
        for block, mine, features, n in zip(self.blocks, outputs, targets, n_features, strict=True):
            total = total + _distances(mine[-1], features, which, block.head, n)
        return total, self._gradient(outputs, targets, which, n_features) if with_gradient else None

    def _gradient(
        self, outputs: list[list[Tensor]], targets: list[Tensor], which: Tensor, n_features: list[int]
    ) -> Tensor:
        """Gradient (B, 3, H, W) of the sum of the distances by the images; uses the outputs up."""
        grad: Tensor | None = None  # of the next block's input
        for block, features, n in zip(self.blocks[::-1], targets[::-1], n_features[::-1], strict=True):
            mine = outputs.pop()
            grad = _tap_gradient(mine.pop(), features, which, block.head, grad, n)
            for weight in block.weights[:0:-1]:
                grad = _masked(_input_gradient(grad, weight), mine.pop())
            grad = _input_gradient(grad, block.weights[0])
        assert grad is not None
        return grad[:, :3].float() * (2 / self.spread)


def _convolution_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if x.is_cuda:
        return torch.cudnn_convolution_relu(x, weight, bias, (1, 1), (1, 1), (1, 1), 1)
    return torch.conv2d(x, weight, bias, padding=1).relu_()


def _input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """Gradient by the input of a 3 x 3 convolution, whose size is that of its output."""
    size = (grad.shape[0], weight.shape[1], *grad.shape[2:])
    like = torch.empty_strided(size, _channels_last(size), dtype=grad.dtype, device=grad.device)
    result: Tensor = torch.ops.aten.convolution_backward(
        grad, like, weight, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (True, False, False)
    )[0]
    return result


def _channels_last(size: tuple[int, ...]) -> tuple[int, ...]:
    _, channels, height, width = size
    return channels * height * width, 1, width * channels, channels


def _pooled(x: Tensor) -> Tensor:
    """Largest of 2 x 2; channels last."""
    n, channels, height, width = x.shape
    size = (n, channels, height // 2, width // 2)
    out = torch.empty_strided(size, _channels_last(size), dtype=x.dtype, device=x.device)
    n_elements = out.numel()
    kernels.pool[(-(-n_elements // ELEMENTS),)](x, out, n_elements, height, width, C=channels, BLOCK=ELEMENTS)
    return out


def _masked(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient where the ReLU's output x is not 0; in place."""
    n_elements = grad.numel()
    assert grad.stride() == x.stride()
    kernels.mask[(-(-n_elements // ELEMENTS),)](grad, x, n_elements, BLOCK=ELEMENTS)
    return grad


def _distances(a: Tensor, b: Tensor, which: Tensor, head: Tensor, n_features: int) -> Tensor:
    """Weighted squared differences (B,) of unit features a (B, C, h, w) and b[which], summed, over n_features."""
    n, channels, height, width = a.shape
    n_pixels = height * width
    block = NUMBERS // channels
    n_blocks = -(-n_pixels // block)
    sums = head.new_empty(n, n_blocks)
    kernels.distance[(n_blocks, n)](a, b, which, head, sums, n_pixels, n_blocks, C=channels, BLOCK=block)
    return sums.sum(1) / n_features


def _tap_gradient(
    a: Tensor, b: Tensor, which: Tensor, head: Tensor, d_pooled: Tensor | None, n_features: int
) -> Tensor:
    """Gradient by the input of the ReLU whose output is a: of `_distances`, and through the pooling."""
    n, channels, height, width = a.shape
    out, block = torch.empty_like(a), NUMBERS // channels
    kernels.tap_gradient[(-(-height * width // block), n)](
        a, b, which, head, a if d_pooled is None else d_pooled, out, height, width, n_features,
        C=channels, IS_POOLED=d_pooled is not None, BLOCK=block,
    )  # fmt: skip
    return out


class _Distance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, model: HalfLpips, target: tuple[int, ...], *y: Tensor) -> Tensor:
        assert not any(ctx.needs_input_grad[3:]), "the second images are constants"
        with_gradient = ctx.needs_input_grad[0]
        gradient = torch.zeros_like(x) if with_gradient else None
        distances = x.new_empty(len(x))
        part, size = model.part(x), (x.shape[2], x.shape[3])
        known = [model.known(image) for image in y]
        for chosen, places in _batches(target, [found is not None for found in known], model.at_once):
            images = torch.stack([part.cut(x[i]) for i in places])
            features = known[chosen[0]] or model.features(torch.stack([part.cut(y[one]) for one in chosen]))
            # Of a tensor on the device, because a graph cannot hold a copy from the host.
            which = torch.stack([model.numbers[chosen.index(target[b])] for b in places])
            distance, slope = model.distance_and_gradient(images, features, which, size, with_gradient)
            for place, b in enumerate(places):
                distances[b] = distance[place]
                if gradient is not None and slope is not None:
                    part.cut(gradient[b]).copy_(slope[place])
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return distances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad[:, None, None, None], *(None for _ in ctx.needs_input_grad[1:])


def _batches(
    target: Sequence[int], is_known: Sequence[bool], at_once: int
) -> list[tuple[list[int], list[int]]]:
    """Targets and the images compared with them, at most so many images at a time.

    Images whose target's features are known come by themselves; else sharers of a target come together.
    """
    groups = [
        [b for b, one in enumerate(target) if one == known]
        for known in range(len(is_known))
        if is_known[known]
    ]
    groups.append(sorted((b for b, one in enumerate(target) if not is_known[one]), key=lambda b: target[b]))
    parts = [group[i : i + at_once] for group in groups for i in range(0, len(group), at_once)]
    return [(sorted({target[b] for b in part}), part) for part in parts]
