"""Texture space of the demo subject: its true paint, and textures unwrapped from pictures and filled in (SPEC 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt, minimum_filter
from scipy.spatial import cKDTree
from torch import Tensor

from common.camera import Camera
from common.demo.subject_render import Hits, TexturedMesh
from common.rasterizer.mesh import rasterize_mesh

GRAZING = 0.25  # cosine below which a surface is not unwrapped
DEPTH_TOLERANCE_M = 0.02
NEARBY = 0.03  # of the image height
CLEARANCE_M = 0.08
SHARPNESS = 16  # exponent of the cosine in the weight of a view: the most frontal one nearly decides


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


@dataclass(frozen=True)
class View:
    """A picture to unwrap, with the body that was fitted to it."""

    vertices: Tensor  # (N, 3) camera coordinates
    camera: Camera
    image: np.ndarray  # (H, W, 3)
    part_colors: np.ndarray  # (H, W, 3) segmentation, same range as image
    mask: np.ndarray  # (H, W) bool
    is_hand: np.ndarray  # (H, W) bool, pixels segmented as a hand


class Unwrapping:
    """Gathers what pictures show of every texel; the most frontal views count most."""

    def __init__(self, mesh: TexturedMesh, uv_map: UvMap, positions: np.ndarray, is_hand: np.ndarray) -> None:
        """positions (N, 3) of the unposed body's vertices: texels never seen take the nearest seen one's values.

        is_hand (N,): a hand takes only pixels segmented as a hand, and the rest none of these.
        """
        self._mesh = mesh
        self._map = uv_map
        self._points = uv_map.hits.mix(positions, mesh.faces.numpy())
        self._is_hand = uv_map.hits.mix(is_hand[:, None], mesh.faces.numpy())[:, 0] > 0.5
        n_texels = len(self._points)
        self._color = np.zeros((n_texels, 3), np.float32)
        self._weight = np.zeros(n_texels, np.float32)
        self._part_color = np.zeros((n_texels, 3), np.float32)
        self._best = np.zeros(n_texels, np.float32)

    def add(self, view: View) -> None:
        """Take over what one picture shows."""
        faces = self._mesh.faces.numpy()
        points = self._map.hits.mix(view.vertices.numpy(), faces)
        normals = self._map.hits.mix(self._mesh.normals(view.vertices), faces)
        towards = -points / np.linalg.norm(points, axis=1, keepdims=True)
        cosine = (normals * towards).sum(1) / np.maximum(np.linalg.norm(normals, axis=1), 1e-6)
        pixel = view.camera.project(torch.from_numpy(points)).numpy()
        height, width = view.mask.shape
        column, row = (np.floor(pixel[:, k]).astype(np.int64) for k in range(2))
        is_inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        column, row = np.clip(column, 0, width - 1), np.clip(row, 0, height - 1)
        depth = rasterize_mesh(view.vertices, self._mesh.faces, view.camera).depth.numpy()
        nearby = minimum_filter(np.where(depth > 0, depth, np.inf), max(3, round(NEARBY * height)))
        is_nearest = np.abs(points[:, 2] - depth[row, column]) < DEPTH_TOLERANCE_M
        is_clear = (
            points[:, 2] - nearby[row, column] < CLEARANCE_M
        )  # no limb in front that a fit may have moved
        is_person = binary_erosion(view.mask)[row, column] & (view.is_hand[row, column] == self._is_hand)
        is_used = is_inside & is_nearest & is_clear & is_person & (cosine > GRAZING)
        weight = np.where(is_used, np.maximum(cosine, 0) ** SHARPNESS, 0).astype(np.float32)
        self._color += weight[:, None] * _bilinear(view.image, pixel)
        self._weight += weight
        is_better = weight > self._best
        self._part_color[is_better] = view.part_colors[row[is_better], column[is_better]]
        self._best = np.maximum(self._best, weight)

    def finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Colour and segmentation textures (T, T, 3) filled in everywhere, and the mask (T, T) of what was seen."""
        is_seen = self._weight > 0
        color = self._color / np.where(is_seen, self._weight, 1)[:, None]
        part_color = self._part_color
        if is_seen.any():
            _, nearest = cKDTree(self._points[is_seen]).query(self._points[~is_seen])
            color[~is_seen] = color[is_seen][nearest]
            part_color[~is_seen] = part_color[is_seen][nearest]
        return self._map.image(color), self._map.image(part_color), self._map.mask(is_seen)


def _bilinear(image: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """Image (H, W, 3) at pixel coordinates (M, 2) with half-integer pixel centres, clamped to the border."""
    height, width = image.shape[:2]
    x = np.clip(pixel[:, 0] - 0.5, 0, width - 1)
    y = np.clip(pixel[:, 1] - 0.5, 0, height - 1)
    x0, y0 = np.minimum(x.astype(np.int64), width - 2), np.minimum(y.astype(np.int64), height - 2)
    fx, fy = (x - x0)[:, None].astype(np.float32), (y - y0)[:, None].astype(np.float32)
    top = image[y0, x0] * (1 - fx) + image[y0, x0 + 1] * fx
    bottom = image[y0 + 1, x0] * (1 - fx) + image[y0 + 1, x0 + 1] * fx
    return top * (1 - fy) + bottom * fy
