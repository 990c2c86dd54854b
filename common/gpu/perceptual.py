"""LPIPS for training on a GPU: 16-bit channels-last convolutions, distances in float32, no autograd inside (SPEC 12).

The gradient to an image is found together with its distance, a few images at a time, so that the features of the
others never lie in memory. The first convolution reads images where they lie, and of its output, the largest, only
the signs are kept (`first_layer`). Targets that several images are compared with go through the network once. Where
the images of a kind of frames can only differ in a part, only what matters for it is computed (`crop`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from common.gpu import perceptual_kernels as kernels
from common.gpu.crop import Crop
from common.gpu.first_layer import FirstLayer
from common.gpu.rooms import is_capturing
from common.perceptual import Lpips
from common.perceptual_crop import Box, Sight

# Numbers of a feature map to a program; of those that compare and pool, numbers of the pooled map.
COMPARED, COMPARED_WARPS = 1024, 4
POOLED, POOLED_WARPS = 2048, 4
MASKED, MASKED_WARPS = 4096, 4
MOST_IMAGES = 64


@dataclass(frozen=True)
class _Block:
    """Convolutions, each with ReLU, between two poolings; the last one's output is compared.

    Without the very first, which is a `FirstLayer`.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    head: Tensor


@dataclass(frozen=True)
class _Targets:
    """What some images are compared with."""

    features: list[Tensor]  # by layer: of different targets
    which: Tensor  # (B,) int32 the target of each image
    places: Tensor  # (B,) int32 the place of each image among all


@dataclass(frozen=True)
class _Sums:
    """Distances of all images, added up by the programs that compare features; in one order, so that they repeat."""

    parts: Tensor  # (B, n)
    of_layers: tuple[Tensor, ...]  # columns of it
    n_features: list[int]  # of whole images, by layer

    @property
    def scale(self) -> float:
        """What gradients are multiplied by in 16 bits: a power of two, which float32 undoes exactly.

        Of means over all pixels they would be too small for float16; of sums their root mean square is about 0.05.
        """
        return 2.0 ** (self.n_features[0].bit_length() - 1)

    @staticmethod
    def of(images: Tensor, part: Box, sight: Sight, widths: list[int]) -> _Sums:
        """Room for images of which a part is looked at; widths: the layers' numbers of channels."""
        height, width = part.bottom - part.top, part.right - part.left
        columns, size = [], (images.shape[2], images.shape[3])
        for channels, cell in zip(widths, sight.cells, strict=True):
            columns.append(_n_sums(height // cell, width // cell, channels))
        parts = images.new_empty(len(images), sum(columns))
        n_features = [sight.n_features(level, size) for level in range(len(widths))]
        return _Sums(parts, parts.split(columns, 1), n_features)


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
                if index == 0:
                    self.first = FirstLayer(layer, exact.shift, exact.spread, dtype)
                    continue
                weight = layer.weight.detach().to(dtype)
                weights.append(weight.contiguous(memory_format=torch.channels_last))
                assert layer.bias is not None
                biases.append(layer.bias.detach().to(dtype))
            elif index in exact.taps:
                head = exact.heads[len(self.blocks)].detach()
                self.blocks.append(_Block(tuple(weights), tuple(biases), head))
                weights, biases = [], []
        self.numbers = torch.arange(MOST_IMAGES, dtype=torch.int32, device=exact.shift.device)
        self.indices: dict[tuple[int, ...], Tensor] = {}

    def forward(self, x: Tensor, y: Tensor | Sequence[Tensor], target: Sequence[int] | None = None) -> Tensor:
        """LPIPS (B,) of images x (B, 3, H, W) and y[target[b]], each (3, H, W); without `target` one for each."""
        assert min(x.shape[2:]) >= self.min_size_px, (x.shape, self.min_size_px)
        assert len(x) <= MOST_IMAGES, x.shape
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
            features = self.features([part.cut(image)])
            self.remembered[image.data_ptr()] = _Remembered(image, part, features)

    def known(self, image: Tensor) -> list[Tensor] | None:
        """Features of the part of an image that is looked at, if they are remembered."""
        found = self.remembered.get(image.data_ptr())
        if found is not None and found.part != self.part(image):  # it has grown
            self.remember([found.image])
            found = self.remembered[image.data_ptr()]
        return None if found is None else found.features

    def features(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Features (n, C, h, w) of n images (3, H, W) at the compared layers, not of unit length."""
        return [outputs[-1] for outputs in self._outputs(self.first.of_each(images), only_last=True)]

    def _outputs(self, x: Tensor, only_last: bool = False) -> list[list[Tensor]]:
        """The output of every ReLU after the first, given that one's, or of each block's last, block by block."""
        outputs = []
        for i, block in enumerate(self.blocks):
            if i > 0:
                x = _pooled(x)
            of_block: list[Tensor] = []
            for weight, bias in zip(block.weights, block.biases, strict=True):
                x = _convolution_relu(x, weight, bias)
                of_block = [x] if only_last else [*of_block, x]
            outputs.append(of_block)
        return outputs

    def index(self, numbers: Sequence[int]) -> Tensor:
        """Numbers below `MOST_IMAGES` as int32 on the device; kept, unless they are a graph's."""
        found = self.indices.get(tuple(numbers))
        if found is None:
            # Of a tensor on the device, because a graph cannot hold a copy from the host.
            found = torch.stack([self.numbers[number] for number in numbers])
            if not is_capturing(found.device):
                self.indices[tuple(numbers)] = found
        return found

    def add_distances(self, images: Tensor, targets: _Targets, sums: _Sums, gradient: Tensor | None) -> None:
        """Compare images[targets.places] with their targets, and write the gradient by them, if it is wanted."""
        if gradient is None:
            outputs = self._outputs(self.first.of_places(images, targets.places), only_last=True)
            for level, (mine,) in enumerate(outputs):
                _compare(mine, None, self.blocks[level].head, level, targets, sums, with_gradient=False)
            return
        signs = self.first.room_for_signs(len(targets.places), images)
        outputs = self._outputs(self.first.of_places(images, targets.places, signs))
        slope = self._gradient(outputs, targets, sums)
        self.first.differentiate(slope, signs, targets.places, gradient, 1 / sums.scale)

    def _gradient(self, outputs: list[list[Tensor]], targets: _Targets, sums: _Sums) -> Tensor:
        """Scaled gradient (n, C, H, W) of the distances' sum by the first ReLU's output; uses the others up."""
        grad: Tensor | None = None  # of the next block's input
        for level, block in reversed(list(enumerate(self.blocks))):
            mine = outputs.pop()
            grad = _compare(mine.pop(), grad, block.head, level, targets, sums)
            for weight in block.weights[:0:-1]:
                grad = _masked(_input_gradient(grad, weight), mine.pop())
            grad = _input_gradient(grad, block.weights[0])
        assert grad is not None
        return grad


def _convolution_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if x.is_cuda:
        return _dense(torch.cudnn_convolution_relu(x, weight, bias, (1, 1), (1, 1), (1, 1), 1))
    return torch.conv2d(x, weight, bias, padding=1).relu_()


def _input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """Gradient by the input of a 3 x 3 convolution, whose size is that of its output."""
    size = (grad.shape[0], weight.shape[1], *grad.shape[2:])
    result: Tensor = torch.ops.aten.convolution_backward(
        grad, _empty(size, grad), weight, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (True, False, False)
    )[0]
    return _dense(result)


def _dense(x: Tensor) -> Tensor:
    """x channels last; cuDNN gives the smallest feature maps, where it is not sure, the other way round."""
    return x.contiguous(memory_format=torch.channels_last)


def _channels_last(size: tuple[int, ...]) -> tuple[int, ...]:
    _, channels, height, width = size
    return channels * height * width, 1, width * channels, channels


def _empty(size: tuple[int, ...], like: Tensor) -> Tensor:
    """Room for a feature map, channels last."""
    return torch.empty_strided(size, _channels_last(size), dtype=like.dtype, device=like.device)


def _block(numbers: int, channels: int) -> int:
    """How many pixels have so many numbers; at least one."""
    return max(numbers // channels, 1)


def _cells(height: int, width: int, n_cells: int) -> tuple[int, int]:
    """Programs along and across the rows of cells of 2 x 2 pixels; the last cell of an odd side is not full."""
    return -(-((width + 1) // 2) // n_cells), (height + 1) // 2


def _n_sums(height: int, width: int, channels: int) -> int:
    """Programs that compare the features of an image."""
    across, along = _cells(height, width, _block(COMPARED, channels))
    return across * along


def _pooled(x: Tensor) -> Tensor:
    """Largest of 2 x 2; channels last."""
    n, channels, height, width = x.shape
    out, n_cells = _empty((n, channels, height // 2, width // 2), x), _block(POOLED, channels)
    grid = (*_cells(height // 2 * 2, width // 2 * 2, n_cells), n)
    kernels.pool[grid](x, out, height, width, C=channels, CELLS=n_cells, num_warps=POOLED_WARPS)
    return out


def _masked(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient where the ReLU's output x is not 0; in place, both channels last."""
    n, channels, height, width = grad.shape
    assert grad.shape == x.shape
    n_pixels, pixels = n * height * width, _block(MASKED, channels)
    grid = (-(-n_pixels // pixels),)
    kernels.mask[grid](grad, x, n_pixels, C=channels, PIXELS=pixels, num_warps=MASKED_WARPS)
    return grad


def _compare(
    a: Tensor,
    d_pooled: Tensor | None,
    head: Tensor,
    level: int,
    targets: _Targets,
    sums: _Sums,
    with_gradient: bool = True,
) -> Tensor:
    """Add the distances of unit features a (B, C, h, w) to the sums.

    Returns the scaled gradient of them, and through the pooling, by the input of the ReLU whose output is a,
    if wanted.
    """
    n, channels, height, width = a.shape
    out = _empty((n, channels, height, width), a) if with_gradient else a
    features, of_layer = targets.features[level], sums.of_layers[level]
    n_cells = _block(COMPARED, channels)
    kernels.compare[(*_cells(height, width, n_cells), n)](
        a, features, targets.which, head, a if d_pooled is None else d_pooled, out, targets.places, of_layer,
        height, width, sums.n_features[level], of_layer.stride(0), sums.scale,
        C=channels, HAS_GRADIENT=with_gradient, IS_POOLED=d_pooled is not None, CELLS=n_cells,
        num_warps=COMPARED_WARPS,
    )  # fmt: skip
    return out


class _Distance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, model: HalfLpips, target: tuple[int, ...], *y: Tensor) -> Tensor:
        assert not any(ctx.needs_input_grad[3:]), "the second images are constants"
        with_gradient = ctx.needs_input_grad[0]
        part, widths = model.part(x), [len(block.head) for block in model.blocks]
        x = x.contiguous()
        is_whole = part == Box.whole((x.shape[2], x.shape[3]))
        gradient = (torch.empty_like if is_whole else torch.zeros_like)(x) if with_gradient else None
        sums = _Sums.of(x, part, model.sight, widths)
        known = [model.known(image) for image in y]
        for chosen, places in _batches(target, [found is not None for found in known], model.at_once):
            features = known[chosen[0]] or model.features([part.cut(y[one]) for one in chosen])
            which = model.index([chosen.index(target[b]) for b in places])
            targets = _Targets(features, which, model.index(places))
            model.add_distances(part.cut(x), targets, sums, None if gradient is None else part.cut(gradient))
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return sums.parts.sum(1)

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
