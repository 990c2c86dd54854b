"""VGG16's first convolution with its ReLU, straight from parts of images and back to them (SPEC 12)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.gpu import first_layer_kernels as kernels
from common.gpu import interprets

COLUMNS, WARPS = 128, 4  # of the convolution: pixels of a row to a program
GRADIENT_COLUMNS, GRADIENT_ROWS, GRADIENT_WARPS, GRADIENT_STAGES = 128, 8, 4, 3
COLUMNS_BY_HAND = 32  # of both where matrix units do not multiply: products by hand need many registers
N_TAPS, N_GROUPS = kernels.K.value, kernels.GROUPS.value


class FirstLayer:
    """The convolution of images in [0, 1], normalised to (2 x - 1 - shift) / spread and continued with zeros.

    Of its output the gradient needs the signs only, which are a sixteenth of it in half precision.
    """

    def __init__(self, convolution: nn.Conv2d, shift: Tensor, spread: Tensor, dtype: torch.dtype) -> None:
        weight, bias = convolution.weight.detach().to(dtype), convolution.bias
        assert weight.shape[1:] == (3, 3, 3) and bias is not None, weight.shape
        self.n_channels, self.dtype = len(weight), dtype
        self.has_matrix_units = dtype == torch.bfloat16  # a GPU that Triton knows them of takes this type
        assert N_GROUPS <= self.n_channels <= 8 * N_GROUPS, self.n_channels
        by_row = F.pad(weight.permute(2, 0, 3, 1), (0, 1, 0, 1))  # (3, C, 4 columns, 4 colours)
        # Triton's interpreter multiplies no matrices of bfloat16.
        factor = torch.float32 if interprets() else dtype
        self.weight = F.pad(weight.flatten(1).T, (0, 0, 0, N_TAPS - 27)).to(factor).contiguous()
        self.gradient_weight = by_row.flatten(2).to(factor).contiguous()
        self.bias = bias.detach().to(dtype)
        shift, spread = shift.flatten(), spread.flatten()
        self.normal = torch.stack([2 / spread, -(1 + shift) / spread])
        self.only = torch.zeros(1, dtype=torch.int32, device=weight.device)  # place of an image by itself

    def room_for_signs(self, n: int, images: Tensor) -> Tensor:
        """Room for the signs (n, H, W, groups) of the output for n images of this size."""
        size = (n, *images.shape[-2:], N_GROUPS)
        return torch.empty(size, dtype=torch.uint8, device=images.device)

    def of_places(self, images: Tensor, places: Tensor, signs: Tensor | None = None) -> Tensor:
        """Output (n, C, H, W) for images[places], and its signs, if there is room for them; places: (n,) int32.

        images (B, 3, H, W) may be a part of larger ones.
        """
        out = self._empty(len(places), images)
        self._convolve(images, places, out, signs)
        return out

    def of_each(self, images: Sequence[Tensor]) -> Tensor:
        """Output (n, C, H, W) for n images (3, H, W), which may be parts of larger ones."""
        out = self._empty(len(images), images[0])
        for image, one in zip(images, out.split(1), strict=True):
            self._convolve(image[None], self.only, one, None)
        return out

    def differentiate(
        self, grad: Tensor, signs: Tensor, places: Tensor, result: Tensor, scale: float = 1.0
    ) -> None:
        """Write `scale` times the gradient by images into result[places], in float32.

        grad: the gradient by the output for them, channels last.
        """
        n, channels, height, width = grad.shape
        assert grad.is_contiguous(memory_format=torch.channels_last) and result.stride(3) == 1, grad.stride()
        columns = GRADIENT_COLUMNS if self.has_matrix_units else COLUMNS_BY_HAND
        kernels.differentiate[(-(-width // (columns - 2)), -(-height // GRADIENT_ROWS), n)](
            grad, signs, self.gradient_weight, self.normal, places, result, height, width, *result.stride()[:3],
            scale,
            C=channels, COLUMNS=columns, ROWS=GRADIENT_ROWS,
            num_warps=GRADIENT_WARPS, num_stages=GRADIENT_STAGES,
        )  # fmt: skip

    def _empty(self, n: int, images: Tensor) -> Tensor:
        size = (n, self.n_channels, *images.shape[-2:])
        return torch.empty(size, dtype=self.dtype, device=images.device, memory_format=torch.channels_last)

    def _convolve(self, images: Tensor, places: Tensor, out: Tensor, signs: Tensor | None) -> None:
        if images.stride(3) != 1:
            images = images.contiguous()
        n, channels, height, width = out.shape
        columns = COLUMNS if self.has_matrix_units else COLUMNS_BY_HAND
        kernels.convolve[(-(-width // columns), height, n)](
            images, places, self.normal, self.weight, self.bias, out, out if signs is None else signs,
            height, width, *images.stride()[:3],
            C=channels, HAS_SIGNS=signs is not None, COLUMNS=columns, num_warps=WARPS,
        )  # fmt: skip
