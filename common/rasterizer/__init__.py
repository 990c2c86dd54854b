"""Splatting of Gaussians and drawing of meshes (SPEC 10, 11)."""

from __future__ import annotations

from common.rasterizer.interface import (
    Backend,
    Scene,
    Splats,
    backend_names,
    rasterize,
    rasterize_together,
    register_backend,
)
from common.rasterizer.mesh import MeshFragments, interpolate_mesh, rasterize_mesh

__all__ = [
    "Backend",
    "MeshFragments",
    "Scene",
    "Splats",
    "backend_names",
    "interpolate_mesh",
    "rasterize",
    "rasterize_mesh",
    "rasterize_together",
    "register_backend",
]
