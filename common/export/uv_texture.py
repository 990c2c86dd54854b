"""The avatar's colours as a texture in the body's UV space, and the mesh cut at the UV seams."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from common.body_model.body import BodyModel
from common.camera import Camera
from common.mesh import Subdivider
from common.rasterizer.mesh import interpolate_mesh, rasterize_mesh


@dataclass(frozen=True)
class UvMesh:
    """The subdivided mesh with one UV a vertex: vertices at seams are there once for each of their UVs."""

    vertex: Tensor  # (M,) which of the N vertices each is
    uv: Tensor  # (M, 2) in [0, 1], v down
    faces: Tensor  # (F, 3) into the M vertices

    @staticmethod
    def of(body: BodyModel) -> UvMesh:
        """Cut the body's subdivided mesh; UVs of midpoints lie midway along the edge in UV space."""
        n_uv = len(body.vertex_uv)
        # The UV triangles are subdivided like the surface's, so that face i corner j is the same point of both.
        in_uv = Subdivider(body.face_uv, n_uv, body.subdivider.levels).to(body.face_uv.device)
        uv = in_uv.interpolate(body.vertex_uv)
        key = body.faces_high.reshape(-1) * len(uv) + in_uv.faces.reshape(-1)
        unique, faces = torch.unique(key, return_inverse=True)
        vertex, chosen = unique // len(uv), unique % len(uv)
        return UvMesh(vertex, uv[chosen], faces.reshape(-1, 3))


def bake_texture(mesh: UvMesh, colors: Tensor, size: int) -> Tensor:
    """Colours (N, 3) in [0, 1] of the vertices as a texture (3, size, size); gaps take the nearest texel's colour.

    Texel centres lie at uv = (index + 0.5) / size, as glTF samples them.
    """
    points = torch.cat([mesh.uv.cpu() * size, torch.ones(len(mesh.uv), 1)], dim=1)
    camera = Camera.identity((1.0, 1.0), (0.0, 0.0), size, size)
    fragments = rasterize_mesh(points, mesh.faces.cpu(), camera)
    texture = interpolate_mesh(fragments, colors.cpu()[mesh.vertex.cpu()])
    is_empty = (fragments.face_index < 0).numpy()
    rows, columns = distance_transform_edt(is_empty, return_distances=False, return_indices=True)
    return texture[:, torch.from_numpy(rows), torch.from_numpy(columns)]
