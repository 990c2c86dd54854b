"""Splatting of Gaussians and drawing of meshes (SPEC 10, 11)."""

from __future__ import annotations

from common.rasterizer.interface import Backend, Splats, backend_names, rasterize, register_backend
from common.rasterizer.mesh import MeshFragments, interpolate_mesh, rasterize_mesh

__all__ = [
    "Backend",
    "MeshFragments",
    "Splats",
    "backend_names",
    "interpolate_mesh",
    "rasterize",
    "rasterize_mesh",
    "register_backend",
]
