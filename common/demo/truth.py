"""How far an avatar of the demo subject is from the known truth (SPEC 16)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.avatar import Avatar
from common.boundary import MASK_THRESHOLD
from common.camera import Camera
from common.errors import UserError
from common.io.array import read_array
from common.io.image import read_mask, read_rgb
from common.io.parameters import read_smplx_params
from common.pose import SmplxPose

LOOSE = 0.1  # a vertex counts as loose cloth above this looseness


@dataclass(frozen=True)
class Truth:
    """What the maker of the demo subject knows of it; N vertices, neutral pose."""

    folder: Path
    albedo: Tensor  # (N, 3)
    static_offset: Tensor  # (N, 3) metres, of clothes and hair
    is_loose: Tensor  # (N,) bool

    @staticmethod
    def load(subject: Path, n_gaussians: int) -> Truth:
        """Read `truth/` of a demo subject; UserError if it is not there or of another body."""
        folder = subject / "truth"
        if not folder.is_dir():
            raise UserError(f"missing folder: {folder}; only demo subjects have their truth beside them")
        vertices = folder / "vertices"
        arrays = {
            name: read_array(vertices / f"{name}.npy") for name in ("albedo", "static_offset", "looseness")
        }
        n_found = len(arrays["albedo"])
        if n_found != n_gaussians:
            raise UserError(f"{vertices}: {n_found} vertices, the avatar has {n_gaussians} Gaussians")
        return Truth(
            folder,
            _tensor(arrays["albedo"]),
            _tensor(arrays["static_offset"]),
            _tensor(arrays["looseness"]) > LOOSE,
        )

    def test_cloth(self, index: int) -> tuple[SmplxPose, Tensor]:
        """Exact pose of a test frame and its cloth's displacement (N, 3) from the neutral body, metres."""
        params = read_smplx_params(self.folder / "smplx_params" / "test" / f"{index}.json")
        driven = _tensor(read_array(self.folder / "cloth" / "test" / f"{index}.npy"))
        return SmplxPose.from_params(params), self.static_offset + driven


@torch.no_grad()
def identity_color_error(avatar: Avatar, truth: Truth) -> float:
    """Mean absolute difference of the avatar's colours to the true albedo over all Gaussians, in [0, 1]."""
    return float((avatar.appearance.rgb.cpu() - truth.albedo).abs().mean())


@torch.no_grad()
def cloth_error_mm(avatar: Avatar, truth: Truth, indices: list[int]) -> float:
    """Mean distance of the refined loose cloth to the true one in the neutral pose, over test poses, in mm."""
    device = avatar.mean_offset.device
    world = Camera.identity((1.0, 1.0), (0.0, 0.0), 1, 1).to(device)
    errors = []
    for index in indices:
        pose, cloth = truth.test_cloth(index)
        posed = avatar(pose.to(device), world)
        offset = (posed.refined_neutral - avatar.neutral_vertices).cpu()
        errors.append((offset - cloth)[truth.is_loose].norm(dim=1).mean())
    return float(torch.stack(errors).mean() * 1000)


def silhouette_iou(subject: Path, renders: Path, indices: list[int]) -> float:
    """Mean intersection over union of the refined test masks with the true ones."""
    values = []
    for index in indices:
        truth = read_mask(subject / "test" / "masks" / f"{index}.png") > 0.5
        mask = read_rgb(renders / f"test_{index}_mask_refined.png")[:1] > MASK_THRESHOLD
        values.append((truth & mask).sum() / (truth | mask).sum())
    return float(torch.stack(values).mean())


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).float()
