"""The formats of the export: their files' suffixes, options and default axes, and writing one posed avatar."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from common.errors import UserError
from common.export.placement import Up
from common.export.splats import ShDegree, write_splat, write_splat_ply
from common.export.surface import write_mesh_ply, write_obj
from common.gaussians import Gaussians

Format = Literal["splat_ply", "splat", "glb", "mesh_ply", "obj"]
SUFFIXES: dict[Format, str] = {
    "splat_ply": ".ply",
    "splat": ".splat",
    "glb": ".glb",
    "mesh_ply": ".ply",
    "obj": ".obj",
}
MAX_TEXTURE = 8192  # pixels
N_EXPRESSIONS = 50


@dataclass(frozen=True)
class FormatOptions:
    """Options of single formats."""

    sh_degree: ShDegree = 0
    """splat_ply: degree of the spherical harmonics; 3 adds 45 columns of zeros for programs that expect them."""
    n_weights: Literal[4, 8] = 4
    """glb: joints a vertex follows at most; three.js and many engines read the first 4 only."""
    n_expressions: int = 10
    """glb: how many of the 50 expression coefficients become shape keys (morph targets)."""
    texture_size: int = 2048
    """glb: width and height of the texture in pixels."""


def check_options(format: Format, options: FormatOptions, up: Up) -> None:
    """UserError for options out of range or against the format."""
    if not 0 <= options.n_expressions <= N_EXPRESSIONS:
        raise UserError(f"--n_expressions {options.n_expressions}: use 0 to {N_EXPRESSIONS}")
    if not 1 <= options.texture_size <= MAX_TEXTURE:
        raise UserError(f"--texture_size {options.texture_size}: use 1 to {MAX_TEXTURE}")
    if format == "glb" and up != "y":
        raise UserError(f"--output_up {up}: glTF files are y-up by definition; leave the option out")


def check_suffix(format: Format, path: Path) -> None:
    """UserError unless the file's name ends as the format's files do."""
    if path.suffix.lower() != SUFFIXES[format]:
        raise UserError(f"--output {path}: a file of --format {format} ends in {SUFFIXES[format]}")


def default_up(format: Format) -> Up:
    """Splat viewers expect captures with y down; meshes and glTF are y-up."""
    return "minus_y" if format in ("splat_ply", "splat") else "y"


def write_gaussians(
    path: Path, format: Format, gaussians: Gaussians, faces: Tensor, options: FormatOptions
) -> None:
    """Write one posed avatar in any format but glb; faces (F, 3) of the surface through its Gaussians."""
    if format == "splat_ply":
        write_splat_ply(path, gaussians, options.sh_degree)
    elif format == "splat":
        write_splat(path, gaussians)
    elif format == "mesh_ply":
        write_mesh_ply(path, gaussians, faces)
    elif format == "obj":
        write_obj(path, gaussians, faces)
    else:
        raise ValueError(f"{format} is not written from Gaussians")
