"""Which triangle covers each pixel of a mesh, and attributes interpolated there (SPEC 11, mesh renders)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.camera import Camera

NEAR_M = 1e-3  # triangles reaching nearer than this are skipped whole


@dataclass(frozen=True)
class MeshFragments:
    """The nearest triangle at every pixel centre of an image."""

    face_index: Tensor  # (H, W) int64; -1: none
    barycentric: Tensor  # (H, W, 3) perspective-correct; 0 where there is no triangle
    depth: Tensor  # (H, W) metres; 0 where there is no triangle
    faces: Tensor  # (F, 3) int64, as given


def rasterize_mesh(vertices_cam: Tensor, faces: Tensor, camera: Camera) -> MeshFragments:
    """Nearest triangle at pixel centres; both sides are drawn; no gradient.

    vertices_cam (V, 3) camera coordinates, metres; faces (F, 3); only the camera's intrinsics are used.
    Where triangles are equally near, the one listed first wins.
    """
    assert vertices_cam.ndim == 2 and vertices_cam.shape[1] == 3, f"vertices: {tuple(vertices_cam.shape)}"
    assert faces.ndim == 2 and faces.shape[1] == 3, f"faces: {tuple(faces.shape)}"
    from common.rasterizer.mesh_kernels import draw_triangles
    from common.rasterizer.numba_threads import torch_threads

    device, dtype = vertices_cam.device, vertices_cam.dtype
    vertices = np.ascontiguousarray(vertices_cam.detach().cpu().double().numpy())
    triangles = np.ascontiguousarray(faces.detach().cpu().long().numpy())
    intrinsics = torch.cat([camera.focal, camera.princpt]).detach().cpu().double().numpy()
    face_index = np.full((camera.height, camera.width), -1, dtype=np.int64)
    barycentric = np.zeros((camera.height, camera.width, 3))
    depth = np.zeros((camera.height, camera.width))
    with torch_threads():
        draw_triangles(vertices, triangles, intrinsics, NEAR_M, face_index, barycentric, depth)
    return MeshFragments(
        face_index=torch.from_numpy(face_index).to(device),
        barycentric=torch.from_numpy(barycentric).to(device, dtype),
        depth=torch.from_numpy(depth).to(device, dtype),
        faces=faces.long(),
    )


def interpolate_mesh(fragments: MeshFragments, attributes: Tensor) -> Tensor:
    """Attributes at every pixel: (A, H, W), 0 where there is no triangle; differentiable in `attributes`.

    attributes: per vertex (V, A), or per face corner (F, 3, A).
    """
    assert attributes.ndim in (2, 3), f"attributes: {tuple(attributes.shape)}"
    height, width = fragments.face_index.shape
    is_covered = fragments.face_index >= 0
    face = fragments.face_index[is_covered]
    corners = attributes[fragments.faces[face]] if attributes.ndim == 2 else attributes[face]
    weight = fragments.barycentric[is_covered].to(attributes.dtype)
    values = (weight[:, :, None] * corners).sum(1)
    image = attributes.new_zeros(height, width, attributes.shape[-1])
    return image.index_put((is_covered,), values).permute(2, 0, 1)
