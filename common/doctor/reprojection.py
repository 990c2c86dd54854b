"""The fitted body in a frame's camera: what it covers, its depth and normals, to hold against the frame's maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from common.body_model.body import BodyModel
from common.body_model.identity import Identity
from common.camera import Camera
from common.mesh import vertex_normals
from common.pose import SmplxParams
from common.rasterizer.mesh import interpolate_mesh, rasterize_mesh

IMAGE_AXES = np.array([1.0, -1.0, -1.0], np.float32)  # camera axes to x right, y up, z towards the camera


@dataclass(frozen=True)
class BodyView:
    """The naked, fitted body as a frame's camera sees it; V vertices."""

    vertices: np.ndarray  # (V, 3) camera space, metres
    pixels: np.ndarray  # (V, 2), meaningless behind the camera
    is_covered: np.ndarray  # (H, W) bool
    depth: np.ndarray  # (H, W) metres, 0 where nothing
    normal: np.ndarray  # (H, W, 3) unit; x right, y up, z towards the camera; 0 where nothing

    @property
    def is_in_front(self) -> np.ndarray:
        """Vertices (V,) before the camera."""
        return self.vertices[:, 2] > 0

    @property
    def share_in_image(self) -> float:
        """Share of the vertices that project into the image."""
        height, width = self.is_covered.shape
        x, y = self.pixels.T
        return float((self.is_in_front & (x >= 0) & (x < width) & (y >= 0) & (y < height)).mean())


@torch.no_grad()
def view_body(body: BodyModel, identity: Identity | None, params: SmplxParams, camera: Camera) -> BodyView:
    """Pose the body in camera space and draw it (SPEC 6: parameters live there, R and t are not needed)."""
    vertices = body.vertices(params, identity).vertices
    fragments = rasterize_mesh(vertices, body.faces, camera)
    normals = interpolate_mesh(fragments, vertex_normals(vertices, body.faces)).permute(1, 2, 0).numpy()
    lengths = np.linalg.norm(normals, axis=2, keepdims=True)
    depth_of_vertices = vertices[:, 2:].clamp(min=1e-6)
    pixels = vertices[:, :2] / depth_of_vertices * camera.focal + camera.princpt
    return BodyView(
        vertices=vertices.numpy(),
        pixels=pixels.numpy(),
        is_covered=(fragments.face_index >= 0).numpy(),
        depth=fragments.depth.numpy(),
        normal=normals / np.maximum(lengths, 1e-6) * IMAGE_AXES,
    )
