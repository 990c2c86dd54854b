"""A mesh with texture coordinates, and which point of it each texel of a texture or pixel of an image shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from scipy.sparse import csr_matrix
from torch import Tensor

from common.body_model.body import BodyModel
from common.camera import Camera
from common.mesh import Subdivider
from common.rasterizer.mesh import MeshFragments, rasterize_mesh


@dataclass(frozen=True)
class TexturedMesh:
    """Faces of the subdivided body with texture coordinates that follow the seams."""

    faces: Tensor  # (F, 3) into the N vertices
    uv: np.ndarray  # (U, 2) in [0, 1], v downwards
    face_uv: Tensor  # (F, 3) into uv
    corners_of: csr_matrix  # (N, F) 1 where a vertex is a corner of a face

    @staticmethod
    def of(body: BodyModel) -> TexturedMesh:
        """The body's subdivided mesh; the UV mesh is split alike, so that faces stay in step."""
        levels = body.subdivider.levels
        split = Subdivider(body.face_uv, body.vertex_uv.shape[0], levels)
        faces = body.faces_high.numpy()
        face_numbers = np.repeat(np.arange(len(faces)), 3)
        ones = np.ones(faces.size, np.float32)
        corners_of = csr_matrix((ones, (faces.reshape(-1), face_numbers)), (body.n_vertices_high, len(faces)))
        return TexturedMesh(
            body.faces_high, split.interpolate(body.vertex_uv).numpy(), split.faces, corners_of
        )

    def normals(self, vertices: Tensor) -> np.ndarray:
        """Unit vertex normals (N, 3) weighted by area; as `common.mesh.vertex_normals`, faster for many frames."""
        corners = vertices.numpy()[self.faces.numpy()]
        summed = self.corners_of @ np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        return summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class Hits:
    """The samples of an image that hit a mesh."""

    is_hit: np.ndarray  # (H, W)
    face: np.ndarray  # (M,)
    barycentric: np.ndarray  # (M, 3) float32
    depth: np.ndarray  # (M,) float32

    @staticmethod
    def of(fragments: MeshFragments) -> Hits:
        """The covered samples in row order."""
        face = fragments.face_index.numpy()
        is_hit = face >= 0
        return Hits(
            is_hit,
            face[is_hit],
            fragments.barycentric.numpy()[is_hit].astype(np.float32),
            fragments.depth.numpy()[is_hit].astype(np.float32),
        )

    def mix(self, values: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """Vertex values (V, C) at the samples (M, C) float32; faces (F, 3) index the values."""
        corners = faces[self.face]
        values = values.astype(np.float32, copy=False)
        return sum(self.barycentric[:, k, None] * values[corners[:, k]] for k in range(3))

    def average(self, values: np.ndarray, factor: int) -> np.ndarray:
        """Values (M, C) averaged over blocks of factor x factor samples, 0 where not hit: (H, W, C)."""
        pixel, height, width = self._pixels(factor)
        sums = [np.bincount(pixel, weights=channel, minlength=height * width) for channel in values.T]
        return (np.stack(sums, 1) / factor**2).astype(np.float32).reshape(height, width, -1)

    def most_frequent(self, labels: np.ndarray, factor: int) -> np.ndarray:
        """The label (M,) uint8 that most samples of a block have, 0 where none hit: (H, W) uint8."""
        pixel, height, width = self._pixels(factor)
        n_labels = int(labels.max(initial=0)) + 1
        counts = np.bincount(pixel * n_labels + labels, minlength=height * width * n_labels)
        return counts.reshape(height, width, n_labels).argmax(-1).astype(np.uint8)

    def _pixels(self, factor: int) -> tuple[np.ndarray, int, int]:
        """Block number (M,) of each sample, and the image's height and width in blocks."""
        height, width = (size // factor for size in self.is_hit.shape)
        row, column = np.nonzero(self.is_hit)
        return (row // factor) * width + column // factor, height, width


@dataclass(frozen=True)
class UvMap:
    """Which point of the mesh each texel of a size x size texture shows."""

    hits: Hits
    corners: np.ndarray  # (M, 3) vertices of each covered texel's face
    size: int

    @staticmethod
    def of(mesh: TexturedMesh, size: int) -> UvMap:
        """Texel centres lie at uv = index / (size - 1), as textures are sampled (align_corners)."""
        flat = torch.from_numpy(mesh.uv).float() * (size - 1) + 0.5
        points = torch.cat([flat, torch.ones(len(flat), 1)], 1)
        camera = Camera.identity((1.0, 1.0), (0.0, 0.0), size, size)
        hits = Hits.of(rasterize_mesh(points, mesh.face_uv, camera))
        return UvMap(hits, mesh.faces.numpy()[hits.face], size)

    def image(self, values: np.ndarray) -> np.ndarray:
        """Texel values (M, C) or (M,) as an image (T, T, ...); gaps between islands take the nearest texel's."""
        rows, columns = distance_transform_edt(~self.hits.is_hit, return_distances=False, return_indices=True)
        texture = np.zeros((self.size, self.size, *values.shape[1:]), values.dtype)
        texture[self.hits.is_hit] = values
        return texture[rows, columns]

    def mask(self, where: np.ndarray) -> np.ndarray:
        """Texels `where` (M,) as an image (T, T) bool."""
        image = np.zeros((self.size, self.size), bool)
        image[self.hits.is_hit] = where
        return image
