"""The very same bits in every run on one machine (`--deterministic`).

On a CPU training repeats bit by bit in any case. On a GPU a sum that many threads add to comes out a little
different every time, and a training amplifies that. Here torch refuses such operations, and those that training
needs are replaced: the Gaussians are drawn by the CPU rasterizer, whose sums have a fixed order; the tri-plane is
read by indexing, whose gradient torch sorts before adding; pooling takes the largest of four slices. The fast
training step stays off.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_REPEATABLE = (":4096:8", ":16:8")  # workspaces with which cuBLAS repeats, by NVIDIA's documentation


def make_deterministic(device: torch.device) -> None:
    """Let torch run only operations that repeat bit by bit, for the rest of this process; before it computes."""
    if os.environ.get(_CUBLAS) not in _REPEATABLE:
        os.environ[_CUBLAS] = _REPEATABLE[0]
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # it could choose another algorithm in each run
    if device.type == "cuda":
        from common.rasterizer import register_backend

        register_backend("host", _load_host_backend, default_for="cuda")


def needs_fixed_order(tensor: Tensor) -> bool:
    """Whether an operation on this tensor must not leave the order of its sums to the device."""
    return tensor.is_cuda and torch.are_deterministic_algorithms_enabled()


def _load_host_backend():  # type: ignore[no-untyped-def]
    from common.rasterizer.host_backend import render

    return render


def sample_planes(planes: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples (P, C, M) of planes (P, C, H, W) at points (P, M, 2) in [-1, 1], x first.

    The same as torch's grid_sample (zeros outside, corners not aligned) up to rounding.
    """
    n_planes, n_channels, height, width = planes.shape
    size = points.new_tensor([width, height])
    place = ((points + 1) * size - 1) / 2
    low = place.floor()
    samples = planes.new_zeros(n_planes, points.shape[1], n_channels)
    rows = planes.permute(0, 2, 3, 1).reshape(n_planes * height * width, n_channels)
    plane = torch.arange(n_planes, device=points.device)[:, None]
    for step_x in (0, 1):
        for step_y in (0, 1):
            corner = low + points.new_tensor([step_x, step_y])
            weight = (1 - (place - corner).abs()).prod(-1)
            x, y = corner.long().unbind(-1)
            is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            index = (plane * height + y.clamp(0, height - 1)) * width + x.clamp(0, width - 1)
            samples = samples + rows[index] * torch.where(is_inside, weight, 0.0)[..., None]
    return samples.movedim(-1, 1)


class LargestOfFour(nn.Module):
    """2 x 2 max pooling of (B, C, H, W) with stride 2 whose gradient repeats; an odd last row or column is left out."""

    def forward(self, x: Tensor) -> Tensor:
        """Pooled maps (B, C, H // 2, W // 2)."""
        height, width = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
        rows = torch.maximum(x[..., 0:height:2, :width], x[..., 1:height:2, :width])
        return torch.maximum(rows[..., 0::2], rows[..., 1::2])


def replace_pools(network: nn.Module) -> None:
    """Replace every 2 x 2 max pooling inside a network."""
    for name, layer in list(network.named_children()):
        if isinstance(layer, nn.MaxPool2d) and (layer.kernel_size, layer.stride, layer.padding) == (2, 2, 0):
            setattr(network, name, LargestOfFour())
        else:
            replace_pools(layer)
