"""Textures in UV space unwrapped from pictures of a fitted body: what is seen, and a guess for the rest (SPEC 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import binary_erosion, minimum_filter
from scipy.spatial import cKDTree
from torch import Tensor

from common.camera import Camera
from common.rasterizer.mesh import rasterize_mesh
from common.uv_map import TexturedMesh, UvMap

GRAZING = 0.25  # cosine below which a surface is not unwrapped
DEPTH_TOLERANCE_M = 0.02
NEARBY = 0.03  # of the image height
CLEARANCE_M = 0.08
MAX_PARTS = 64
_CODE = np.array([1 << 16, 1 << 8, 1])
SHARPNESS = 16  # exponent of the cosine in the weight of a view: the most frontal one nearly decides


@dataclass(frozen=True)
class UnwrapSettings:
    """How views are combined and gaps are filled; the defaults suit few, sharp, equally lit pictures."""

    sharpness: float = SHARPNESS
    n_robust_rounds: int = 0  # times that views far from a texel's mean colour lose weight
    robust_scale: float = 0.1  # colour difference at which a view loses half of its weight
    n_fill: int = 1  # seen points that an unseen texel takes its colour from, by distance
    is_part_voted: bool = False  # views vote on a texel's part, and only those that agree give its colour


@dataclass(frozen=True)
class View:
    """A picture to unwrap, with the body that was fitted to it."""

    vertices: Tensor  # (N, 3) camera coordinates
    camera: Camera
    image: np.ndarray  # (H, W, 3)
    part_colors: np.ndarray  # (H, W, 3) segmentation, same range as image
    mask: np.ndarray  # (H, W) bool
    is_hand: np.ndarray  # (H, W) bool, pixels segmented as a hand


@dataclass(frozen=True)
class UnwrappedTextures:
    """Textures, filled everywhere."""

    color: np.ndarray  # (T, T, 3)
    part_color: np.ndarray  # (T, T, 3)
    is_seen: np.ndarray  # (T, T) bool, texels that a view showed
    share_seen: float  # of the texels that lie on the body


@dataclass(frozen=True)
class _Samples:
    """What one view shows: K of the M texels."""

    texel: np.ndarray  # (K,)
    color: np.ndarray  # (K, 3)
    weight: np.ndarray  # (K,)
    part: np.ndarray  # (K,) part colour as one number


class Unwrapping:
    """Gathers what pictures show of every texel; the most frontal views count most."""

    def __init__(
        self,
        mesh: TexturedMesh,
        uv_map: UvMap,
        positions: np.ndarray,
        is_hand: np.ndarray,
        settings: UnwrapSettings | None = None,
    ) -> None:
        """positions (N, 3) of the unposed body's vertices: texels never seen take the nearest seen ones' values.

        is_hand (N,): a hand takes only pixels segmented as a hand, and the rest none of these.
        """
        self._mesh = mesh
        self._map = uv_map
        self._settings = settings or UnwrapSettings()
        self._points = uv_map.hits.mix(positions, mesh.faces.numpy())
        self._is_hand = uv_map.hits.mix(is_hand[:, None], mesh.faces.numpy())[:, 0] > 0.5
        n_texels = len(self._points)
        self._samples: list[_Samples] = []
        self._part_color = np.zeros((n_texels, 3), np.float32)
        self._best = np.zeros(n_texels, np.float32)

    def add(self, view: View) -> None:
        """Take over what one picture shows."""
        faces = self._mesh.faces.numpy()
        points = self._map.hits.mix(view.vertices.numpy(), faces)
        normals = self._map.hits.mix(self._mesh.normals(view.vertices), faces)
        towards = -points / np.linalg.norm(points, axis=1, keepdims=True)
        cosine = (normals * towards).sum(1) / np.maximum(np.linalg.norm(normals, axis=1), 1e-6)
        pixel = _pixels(points, view.camera)
        height, width = view.mask.shape
        column, row = (np.floor(pixel[:, k]).astype(np.int64) for k in range(2))
        is_inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
        column, row = np.clip(column, 0, width - 1), np.clip(row, 0, height - 1)
        depth = rasterize_mesh(view.vertices, self._mesh.faces, view.camera).depth.numpy()
        nearby = minimum_filter(np.where(depth > 0, depth, np.inf), max(3, round(NEARBY * height)))
        is_nearest = np.abs(points[:, 2] - depth[row, column]) < DEPTH_TOLERANCE_M
        # no limb in front that a fit may have moved
        is_clear = points[:, 2] - nearby[row, column] < CLEARANCE_M
        is_person = binary_erosion(view.mask)[row, column] & (view.is_hand[row, column] == self._is_hand)
        is_used = is_inside & is_nearest & is_clear & is_person & (cosine > GRAZING)
        texel = np.flatnonzero(is_used)
        weight = (cosine[texel] ** self._settings.sharpness).astype(np.float32)
        part = color_codes(view.part_colors[row[texel], column[texel]])
        self._samples.append(_Samples(texel, _bilinear(view.image, pixel[texel]), weight, part))
        is_better = weight > self._best[texel]
        chosen = texel[is_better]
        self._part_color[chosen] = view.part_colors[row[chosen], column[chosen]]
        self._best[chosen] = weight[is_better]

    def finish(self) -> UnwrappedTextures:
        """The textures of all views so far."""
        if self._settings.is_part_voted:
            self._vote()
        color, total = self._mean([sample.weight for sample in self._samples])
        scale = self._settings.robust_scale
        for _ in range(self._settings.n_robust_rounds):
            distances = [np.linalg.norm(s.color - color[s.texel], axis=1) for s in self._samples]
            trust = [s.weight / (1 + (d / scale) ** 2) for s, d in zip(self._samples, distances, strict=True)]
            color, _ = self._mean(trust)
        is_seen = total > 0
        part_color = self._part_color
        if is_seen.any() and not is_seen.all():
            neighbours, weight = self._nearest_seen(is_seen)
            color[~is_seen] = (color[is_seen][neighbours] * weight[..., None]).sum(1)
            part_color[~is_seen] = part_color[is_seen][neighbours[:, 0]]
        color_image, part_image = self._map.image(color), self._map.image(part_color)
        return UnwrappedTextures(color_image, part_image, self._map.mask(is_seen), float(is_seen.mean()))

    def _vote(self) -> None:
        """Give each texel the part colour with the greatest weight, and keep the samples that agree."""
        codes, counts = np.unique(np.concatenate([s.part for s in self._samples]), return_counts=True)
        codes = np.sort(codes[np.argsort(-counts)[:MAX_PARTS]])  # rarer ones are borders between parts
        votes = np.zeros((len(self._best), len(codes)), np.float32)
        for sample in self._samples:
            number = np.searchsorted(codes, sample.part).clip(max=len(codes) - 1)
            is_known = codes[number] == sample.part
            votes[sample.texel[is_known], number[is_known]] += sample.weight[is_known]
        has_votes = votes.max(1) > 0
        winner = codes[votes.argmax(1)]
        self._part_color[has_votes] = colors_of(winner[has_votes])
        for i, sample in enumerate(self._samples):
            agrees = (sample.part == winner[sample.texel]) | ~has_votes[sample.texel]
            self._samples[i] = _Samples(
                sample.texel[agrees], sample.color[agrees], sample.weight[agrees], sample.part[agrees]
            )

    def _mean(self, weights: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Weighted mean colour (M, 3) of all samples and the sum of weights (M,); 0 where there are none."""
        color, total = np.zeros_like(self._part_color), np.zeros_like(self._best)
        for sample, weight in zip(self._samples, weights, strict=True):
            color[sample.texel] += weight[:, None] * sample.color
            total[sample.texel] += weight
        return color / np.where(total > 0, total, 1)[:, None], total

    def _nearest_seen(self, is_seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For the U unseen texels: numbers (U, n) of seen ones, nearest first, and their shares (U, n).

        Near on the unposed body, so that seams and gaps between UV islands do not matter.
        """
        tree = cKDTree(self._points[is_seen])
        n_fill = min(self._settings.n_fill, int(is_seen.sum()))
        distance, neighbours = tree.query(self._points[~is_seen], k=[*range(1, n_fill + 1)], workers=-1)
        weight = 1 / np.maximum(distance, 1e-4) ** 2
        return neighbours, (weight / weight.sum(1, keepdims=True)).astype(np.float32)


def color_codes(colors: np.ndarray) -> np.ndarray:
    """Colours (..., 3) in [0, 1] as one number each, of their 8-bit values."""
    return np.rint(colors * 255).astype(np.int64) @ _CODE


def colors_of(codes: np.ndarray) -> np.ndarray:
    """The colours (..., 3) float32 of `color_codes`."""
    return (codes[..., None] // _CODE % 256 / 255).astype(np.float32)


def _pixels(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Pixel coordinates (M, 2) of camera-space points (M, 3)."""
    place = torch.from_numpy(points)
    return (place[:, :2] / place[:, 2:] * camera.focal + camera.princpt).numpy()


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
