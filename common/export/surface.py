"""The surface through the Gaussians' centres as a mesh with vertex colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from common.gaussians import Gaussians
from common.io.atomic import atomic_path
from common.io.image import to_uint8
from common.io.ply import write_mesh


def write_mesh_ply(path: Path, gaussians: Gaussians, faces: Tensor) -> None:
    """Write the surface with faces (F, 3) as a binary .ply with 8-bit colours."""
    write_mesh(path, gaussians.mean.cpu().numpy(), faces.cpu().numpy(), to_uint8(gaussians.rgb.T[:, None])[0])


def write_obj(path: Path, gaussians: Gaussians, faces: Tensor) -> None:
    """Write the surface with faces (F, 3) as an .obj whose `v` lines have a colour: x y z r g b."""
    vertices = np.concatenate([gaussians.mean.cpu().numpy(), gaussians.rgb.cpu().numpy()], axis=1)
    with atomic_path(path) as temporary, temporary.open("w", encoding="ascii") as file:
        np.savetxt(file, vertices, fmt="v %.7g %.7g %.7g %.4f %.4f %.4f")
        np.savetxt(file, faces.cpu().numpy() + 1, fmt="f %d %d %d")
