"""Gaussians as files of splat viewers: the .ply of 3D Gaussian splatting and the compressed .splat."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from common.gaussians import Gaussians
from common.io.atomic import atomic_path
from common.io.ply import write_points

SH_C0 = 0.28209479177387814  # spherical harmonic of degree 0
N_REST = {0: 0, 3: 45}  # further spherical harmonic coefficients by degree
OPACITY_EPS = 1e-7  # opacity 1 is stored as 1 - this: logit 16.1, the same 8-bit and float16 opacity
ShDegree = Literal[0, 3]


@dataclass(frozen=True)
class _Columns:
    """N Gaussians in full form, float32 (double where the logit needs it)."""

    mean: np.ndarray  # (N, 3) metres
    rgb: np.ndarray  # (N, 3)
    opacity: np.ndarray  # (N,)
    scale: np.ndarray  # (N, 3) metres
    rotation: np.ndarray  # (N, 4) unit quaternion w, x, y, z

    @staticmethod
    def of(gaussians: Gaussians) -> _Columns:
        n = len(gaussians.mean)
        opacity = torch.ones(n) if gaussians.opacity is None else gaussians.opacity
        rotation = gaussians.rotation
        if rotation is None:
            rotation = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(n, 4)
        return _Columns(
            mean=_array(gaussians.mean),
            rgb=_array(gaussians.rgb),
            opacity=_array(opacity),
            scale=_array(gaussians.scale.expand(n, 3)),
            rotation=_array(torch.nn.functional.normalize(rotation, dim=1)),
        )


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


def write_splat_ply(path: Path, gaussians: Gaussians, sh_degree: ShDegree = 0) -> None:
    """Write Gaussians as the binary .ply of 3D Gaussian splatting (Kerbl et al. 2023), float32.

    Columns: position, normal (zero), colour as spherical harmonics (degree 0, the 45 further ones zero),
    opacity as a logit, logarithms of the scales, rotation w x y z.
    """
    full = _Columns.of(gaussians)
    opacity = full.opacity.clip(OPACITY_EPS, 1 - OPACITY_EPS)
    columns = dict(zip("xyz", full.mean.T, strict=True))
    columns |= dict.fromkeys(("nx", "ny", "nz"), np.zeros(len(full.mean)))
    columns |= _numbered("f_dc", (full.rgb - 0.5) / SH_C0)
    columns |= _numbered("f_rest", np.zeros((len(full.mean), N_REST[sh_degree])))
    columns |= {"opacity": np.log(opacity / (1 - opacity))}
    columns |= _numbered("scale", np.log(full.scale))
    columns |= _numbered("rot", full.rotation)
    write_points(path, columns)


def _numbered(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{name}_{i}": column for i, column in enumerate(values.T)}


def write_splat(path: Path, gaussians: Gaussians) -> None:
    """Write Gaussians as a .splat file: 32 bytes each, no header, the largest and most opaque first.

    Position 3 and scale 3 float32, colour and opacity 4 bytes, rotation w x y z 4 bytes (128 + 128 q).
    """
    full = _Columns.of(gaussians)
    table = np.empty(
        len(full.mean),
        [("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("rotation", "u1", 4)],
    )
    table["mean"], table["scale"] = full.mean, full.scale
    table["rgba"][:, :3] = (full.rgb * 255).round().clip(0, 255)
    table["rgba"][:, 3] = (full.opacity * 255).round().clip(0, 255)
    table["rotation"] = (full.rotation * 128 + 128).round().clip(0, 255)
    importance = full.scale.prod(1) * full.opacity
    with atomic_path(path) as temporary:
        temporary.write_bytes(table[np.argsort(-importance, kind="stable")].tobytes())
