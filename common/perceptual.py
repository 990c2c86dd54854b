"""LPIPS (Zhang et al. 2018, version 0.1) with VGG16 or AlexNet features, in plain torch.

The trunks read torchvision's published weight files, the linear heads those of the `lpips` package; neither
package is imported. No weights come with this repository.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.io.torch_file import read_torch_file
from common.perceptual_crop import Box, Sight, Size, part_to_see

logger = logging.getLogger(__name__)

TORCHVISION_URL = "https://download.pytorch.org/models/"
NORM_EPS = 1e-10  # added to a feature vector's length before dividing by it
Net = Literal["vgg", "alex"]


@dataclass(frozen=True)
class TrunkSpec:
    """A classification network's convolutions and which of their outputs are compared."""

    file_name: str  # of torchvision; ends in the first digits of its SHA-256
    convolutions: dict[int, tuple[int, int, int, int, int]]  # layer: in, out, kernel, stride, padding
    pools: dict[int, tuple[int, int]]  # layer: kernel, stride
    n_layers: int
    taps: tuple[int, ...]  # layers (ReLUs) whose outputs are compared
    min_size_px: int  # smallest image side that leaves something after all pools


def _vgg16() -> TrunkSpec:
    """VGG16 without batch normalisation: 3x3 convolutions, compared after relu1_2, 2_2, 3_3, 4_3, 5_3."""
    convolutions, pools, layer, n_in = {}, {}, 0, 3
    for n_out, n_repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(n_repeats):
            convolutions[layer] = (n_in, n_out, 3, 1, 1)
            layer, n_in = layer + 2, n_out
        pools[layer] = (2, 2)
        layer += 1
    return TrunkSpec("vgg16-397923af.pth", convolutions, pools, 30, taps=(3, 8, 15, 22, 29), min_size_px=16)


_ALEXNET = TrunkSpec(
    "alexnet-owt-7be5be79.pth",
    convolutions={
        0: (3, 64, 11, 4, 2),
        3: (64, 192, 5, 1, 2),
        6: (192, 384, 3, 1, 1),
        8: (384, 256, 3, 1, 1),
        10: (256, 256, 3, 1, 1),
    },
    pools={2: (3, 2), 5: (3, 2)},
    n_layers=12,
    taps=(1, 4, 7, 9, 11),
    min_size_px=31,
)
TRUNKS: dict[Net, TrunkSpec] = {"vgg": _vgg16(), "alex": _ALEXNET}


def sight(spec: TrunkSpec) -> Sight | None:
    """How far features see; None unless layers lie over each other without shifts, as VGG16's do."""
    if any(kernel != stride for kernel, stride in spec.pools.values()):
        return None
    if any(stride != 1 or kernel != 2 * pad + 1 for _, _, kernel, stride, pad in spec.convolutions.values()):
        return None
    cell, reach, cells = 1, 0, []
    for layer in range(spec.n_layers):
        if layer in spec.convolutions:
            reach += cell * spec.convolutions[layer][4]
        elif layer in spec.pools:
            cell *= spec.pools[layer][0]
        if layer in spec.taps:
            cells.append(cell)
    return Sight(tuple(cells), reach)


def build_trunk(spec: TrunkSpec) -> nn.Sequential:
    """The network up to its last compared layer; modules have torchvision's indices."""
    layers: list[nn.Module] = []
    for index in range(spec.n_layers):
        if index in spec.convolutions:
            n_in, n_out, kernel, stride, padding = spec.convolutions[index]
            layers.append(nn.Conv2d(n_in, n_out, kernel, stride, padding))
        elif index in spec.pools:
            layers.append(nn.MaxPool2d(*spec.pools[index]))
        else:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def unit_length(features: Tensor) -> Tensor:
    """Feature vectors (B, C, H, W) divided by their length; zero ones stay zero, gradient too."""
    squares = features.square().sum(1, keepdim=True)
    is_zero = squares == 0
    length = torch.where(is_zero, torch.ones_like(squares), squares).sqrt()
    return features / (torch.where(is_zero, torch.zeros_like(length), length) + NORM_EPS)


class Lpips(nn.Module):
    """Perceptual distance of two image batches; all weights are frozen."""

    shift: Tensor
    spread: Tensor

    def __init__(self, net: Net) -> None:
        super().__init__()
        spec = TRUNKS[net]
        self.taps = spec.taps
        self.sight = sight(spec)
        self.min_size_px = spec.min_size_px
        self.trunk = build_trunk(spec)
        widths = [
            next(spec.convolutions[i][1] for i in range(tap, -1, -1) if i in spec.convolutions)
            for tap in spec.taps
        ]
        self.heads = nn.ParameterList([nn.Parameter(torch.zeros(width)) for width in widths])
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("spread", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def features(self, images: Tensor) -> list[Tensor]:
        """Unit feature vectors (B, C, h, w) of images in [0, 1] at the compared layers."""
        x = (2 * images - 1 - self.shift) / self.spread
        outputs = []
        for index, layer in enumerate(self.trunk):
            x = layer(x)
            if index in self.taps:
                outputs.append(unit_length(x))
        return outputs

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """LPIPS of images (B, 3, H, W) in [0, 1] -> (B,): eq. 1 of Zhang et al. 2018, summed over layers.

        With VGG16 only what can add to it is computed (`common.perceptual_crop`).
        """
        assert x.shape == y.shape and x.dim() == 4 and x.shape[1] == 3, (x.shape, y.shape)
        if min(x.shape[2:]) < self.min_size_px:
            raise UserError(
                f"images of {x.shape[3]} x {x.shape[2]} pixels are too small for LPIPS (a side needs "
                f"{self.min_size_px}); use larger images, or --no_lpips"
            )
        size = (x.shape[2], x.shape[3])
        parts = [self._part(a, b, size) for a, b in zip(x, y, strict=True)]
        distances: list[Tensor] = [x.new_zeros(())] * len(x)
        for part in dict.fromkeys(parts):
            places = [place for place, one in enumerate(parts) if one == part]
            a, b = (part.cut(torch.stack([images[i] for i in places])) for images in (x, y))
            for place, distance in zip(places, self._distances(a, b, size), strict=True):
                distances[place] = distance
        return torch.stack(distances)

    def _part(self, a: Tensor, b: Tensor, size: Size) -> Box:
        """The part of two images (3, H, W) that their distance depends on."""
        if self.sight is None:
            return Box.whole(size)
        return part_to_see(Box.around((a.detach() != b.detach()).any(0)), size, self.sight)

    def _distances(self, x: Tensor, y: Tensor, size: Size) -> Tensor:
        """Distances (B,) of images of that size, of which x and y are the part that matters."""
        if x.numel() == 0:
            return (x - y).flatten(1).sum(1)  # zeros that a backward pass can start from
        distance = x.new_zeros(len(x))
        features = zip(self.features(x), self.features(y), strict=True)
        for level, (head, (a, b)) in enumerate(zip(self.heads, features, strict=True)):
            weighted = (a - b).square() * head.view(1, -1, 1, 1)
            share = 1.0 if self.sight is None else a[0, 0].numel() / self.sight.n_features(level, size)
            distance = distance + weighted.sum(1).mean((1, 2)) * share
        return distance


@torch.no_grad()
def random_lpips(net: Net, seed: int = 0) -> Lpips:
    """LPIPS with random weights of a usual size: as fast as the real one, for timing and for tests."""
    generator = torch.Generator().manual_seed(seed)
    model = Lpips(net)
    for layer in model.trunk:
        if isinstance(layer, nn.Conv2d):
            deviation = (2 / layer.weight[0].numel()) ** 0.5
            layer.weight.copy_(deviation * torch.randn(layer.weight.shape, generator=generator))
            assert layer.bias is not None
            layer.bias.copy_(0.05 * torch.randn(layer.bias.shape, generator=generator))
    for head in model.heads:
        head.copy_(torch.rand(head.shape, generator=generator))
    return model.eval()


class WeightsMissing(UserError):
    """A weight file of LPIPS is neither on this machine nor to be had."""


def load_lpips(net: Net, weights_dir: Path | None = None, download: bool = True) -> Lpips:
    """LPIPS with its published weights.

    The trunk's file is looked for in `weights_dir`, then in torch's hub cache, then downloaded into that; the
    heads' file (`vgg.pth` or `alex.pth`) in `weights_dir`, then in an installed `lpips` package.
    Raises WeightsMissing naming each missing file, UserError for a file that is not the expected one.
    """
    if weights_dir is not None and not weights_dir.is_dir():
        raise UserError(f"--lpips_weights {weights_dir}: no such folder")
    trunk_file, heads_file = find_trunk(net, weights_dir), find_heads(net, weights_dir)
    problem = "not found"
    if trunk_file is None and heads_file is not None and download:
        try:
            trunk_file = download_trunk(net)
        except (OSError, HTTPException) as error:
            problem = f"cannot be downloaded ({error})"
    if trunk_file is None or heads_file is None:
        missing = []
        if trunk_file is None:
            missing.append(f"{TRUNKS[net].file_name} from {TORCHVISION_URL}{TRUNKS[net].file_name}")
        if heads_file is None:
            missing.append(
                f"{net}.pth from lpips/weights/v0.1 in the wheel of the Python package lpips 0.1.4"
            )
        files = " and ".join(missing)
        raise WeightsMissing(
            f"LPIPS weights {problem}: put {files} into a folder and give it as --lpips_weights, "
            "or go without LPIPS (when training: --no_lpips)"
        )
    model = Lpips(net)
    _load_trunk(model.trunk, trunk_file)
    _load_heads(model.heads, heads_file)
    return model.eval()


def hub_cache() -> Path:
    """Where torch.hub, and so torchvision, keeps downloaded weights."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def find_trunk(net: Net, weights_dir: Path | None) -> Path | None:
    """torchvision's weight file of a trunk in the folder or in torch's hub cache."""
    folders = [hub_cache()] if weights_dir is None else [weights_dir, hub_cache()]
    return next((path for folder in folders if (path := folder / TRUNKS[net].file_name).is_file()), None)


def find_heads(net: Net, weights_dir: Path | None) -> Path | None:
    """The linear heads' file in the folder or in an installed `lpips` package, which is not imported."""
    folders = [] if weights_dir is None else [weights_dir]
    package = find_spec("lpips")
    if package is not None and package.origin is not None:
        folders.append(Path(package.origin).parent / "weights" / "v0.1")
    return next((path for folder in folders if (path := folder / f"{net}.pth").is_file()), None)


def download_trunk(net: Net) -> Path:
    """Fetch torchvision's weight file of a trunk into torch's hub cache."""
    name = TRUNKS[net].file_name
    return _download(TORCHVISION_URL + name, hub_cache() / name)


def _download(url: str, target: Path) -> Path:
    """Fetch a file whose name ends in the first digits of its SHA-256; nothing is left behind on failure."""
    target.parent.mkdir(parents=True, exist_ok=True)
    logger.info("downloading %s to %s", url, target)
    digest = hashlib.sha256()
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=30) as response:
            while block := response.read(1 << 20):
                digest.update(block)
                file.write(block)
        expected = target.stem.rsplit("-", 1)[1]
        if not digest.hexdigest().startswith(expected):
            raise OSError(f"SHA-256 begins with {digest.hexdigest()[:8]} instead of {expected}")
        Path(temporary).replace(target)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return target


def _read(file: Path) -> dict[str, Tensor]:
    """A weight file's tensors; UserError if it is damaged or holds anything else."""
    state = read_torch_file(file, "a readable weight file", "get it again")
    is_weights = isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())
    if not is_weights or not all(isinstance(name, str) for name in state):
        raise UserError(f"{file}: not a weight file (a dict of tensors is expected); get it again")
    return state


def _load_trunk(trunk: nn.Sequential, file: Path) -> None:
    prefix = "features."
    state = {key.removeprefix(prefix): value for key, value in _read(file).items() if key.startswith(prefix)}
    _copy(dict(trunk.named_parameters()), state, file, prefix)


def _load_heads(heads: nn.ParameterList, file: Path) -> None:
    state = _read(file)
    expected = {f"lin{i}.model.1.weight": head.view(1, -1, 1, 1) for i, head in enumerate(heads)}
    _copy(expected, state, file, "")


@torch.no_grad()
def _copy(targets: dict[str, Tensor], state: dict[str, Tensor], file: Path, prefix: str) -> None:
    """Copy named tensors; UserError naming the first that is missing or of another shape."""
    for name, target in targets.items():
        if name not in state:
            raise UserError(f"{file}: no {prefix}{name} in it; it is not the weight file that LPIPS needs")
        if state[name].shape != target.shape:
            found, expected = tuple(state[name].shape), tuple(target.shape)
            raise UserError(f"{file}: {prefix}{name} has shape {found} instead of {expected}; get it again")
        if not (state[name].is_floating_point() and torch.isfinite(state[name]).all()):
            raise UserError(f"{file}: {prefix}{name} holds something else than finite numbers; get it again")
        target.copy_(state[name])
