"""The depth-boundary map of a photo: where neighbouring pixels show distant places of the body (SPEC 11)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from common import gpu
from common.constants import constant

MASK_THRESHOLD = 0.9  # a pixel belongs to the avatar where its mask is above this


def sobel_magnitude(image: Tensor) -> Tensor:
    """Mean over channels of the Sobel gradient's norm (kernel / 8, replicate padding): (C, H, W) -> (H, W)."""
    kernel = constant(((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0)), image) / 8
    kernels = torch.stack([kernel, kernel.T])[:, None]
    padded = F.pad(image[:, None], (1, 1, 1, 1), mode="replicate")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # differences of nearly equal numbers
        gradient = F.conv2d(padded, kernels)  # (C, 2, H, W)
    return gradient.square().sum(1).sqrt().mean(0)


def dilation_kernel_size(mask: Tensor, ratio: float) -> int:
    """Odd kernel size, `ratio` of the larger side of the box around mask > 0.9; 0 where that box is empty."""
    rows, columns = (mask.squeeze(0) > MASK_THRESHOLD).nonzero(as_tuple=True)
    if len(rows) == 0:
        return 0
    side = max(int(rows.max() - rows.min()), int(columns.max() - columns.min())) + 1
    size = round(ratio * side)
    return size + 1 if size % 2 == 0 else size


def dilate(mask: Tensor, kernel_size: int) -> Tensor:
    """Dilation of a 0/1 mask (1, H, W) by a square of odd size; size 0 or 1 changes nothing."""
    if kernel_size <= 1:
        return mask
    return F.max_pool2d(mask[None], kernel_size, stride=1, padding=kernel_size // 2)[0]


def dilation_reach(mask: Tensor, ratio: float) -> Tensor:
    """Half of `dilation_kernel_size` (an integer without dimensions), without waiting for the device."""
    sides = []
    for axis in (0, 1):
        is_in = (mask.squeeze(0) > MASK_THRESHOLD).any(axis)
        place = torch.arange(len(is_in), device=mask.device)
        last = torch.where(is_in, place, -1).amax()
        sides.append(last - torch.where(is_in, place, len(is_in)).amin() + 1)
    side = torch.maximum(*sides)
    return torch.where(side > 0, (side.double() * ratio).round().long() // 2, 0)


def dilate_by(mask: Tensor, reach: Tensor) -> Tensor:
    """`dilate` of a 0/1 mask (1, H, W) by a square of size 2 reach + 1, whose reach only the device knows."""
    for axis in (1, 2):
        size = mask.shape[axis]
        place = torch.arange(size, device=mask.device)
        ones = mask.movedim(axis, -1).to(torch.int32)  # a sum of integers is the same in any order
        before = F.pad(ones.cumsum(-1), (1, 0))  # how many ones there are before each place
        upper = before.index_select(-1, (place + reach + 1).clamp(max=size))
        lower = before.index_select(-1, (place - reach).clamp(min=0))
        mask = (upper > lower).to(mask.dtype).movedim(-1, axis)
    return mask


@torch.no_grad()
def boundary_map(
    positions: Tensor, mask: Tensor, face_mask: Tensor, threshold: float, ratio: float
) -> Tensor:
    """Depth-boundary map (1, H, W) of 0 and 1 (SPEC 11).

    positions (3, H, W): rendered boundary_channel; mask (1, H, W): rendered mask whose box sets the dilation;
    face_mask (1, H, W): mesh face mask with closed mouth, whose pixels are no boundary.
    """
    is_boundary = sobel_magnitude(positions)[None] > threshold
    is_face = face_mask > MASK_THRESHOLD
    start = (is_boundary & ~is_face).to(mask.dtype)
    if gpu.is_on(mask):
        return dilate_by(start, dilation_reach(mask, ratio))
    return dilate(start, dilation_kernel_size(mask, ratio))
