"""Anti-aliased pictures and maps of the textured demo subject, drawn with the mesh rasterizer (SPEC 3, 16)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from common.camera import Camera
from common.rasterizer.mesh import rasterize_mesh
from common.uv_map import Hits, TexturedMesh

LIGHT = np.array([-0.45, -0.62, -0.64], dtype=np.float32)  # towards the light, camera axes (x right, y down)
LIGHT_RANGE = (0.76, 1.06)  # shading away from and towards the light: soft, so that one colour can serve


@dataclass(frozen=True)
class Paint:
    """What the surface looks like, in UV space, T x T."""

    albedo: np.ndarray  # (T, T, 3) float32 in [0, 1]
    label: np.ndarray  # (T, T) uint8, index of a part


@dataclass(frozen=True)
class Picture:
    """One rendered frame; values of the person are averages over the samples that hit the person."""

    image: np.ndarray  # (H, W, 3) lit person over the background, [0, 1]
    albedo: np.ndarray  # (H, W, 3) unlit person over the background
    coverage: np.ndarray  # (H, W) share of samples that hit the person
    depth: np.ndarray  # (H, W) metres, 0 where nothing
    normal: np.ndarray  # (H, W, 3) unit; x right, y up, z towards the camera; 0 where nothing
    label: np.ndarray  # (H, W) uint8, most frequent part, 0 where nothing
    looseness: np.ndarray  # (H, W) how loose the visible cloth is, 0..1

    @property
    def mask(self) -> np.ndarray:
        """Foreground (H, W) bool."""
        return self.coverage > 0.5


def finer(camera: Camera, factor: int) -> Camera:
    """The same view with factor x factor samples a pixel."""
    return replace(
        camera,
        focal=camera.focal * factor,
        princpt=camera.princpt * factor,
        height=camera.height * factor,
        width=camera.width * factor,
    )


def render(
    vertices: Tensor,
    mesh: TexturedMesh,
    paint: Paint,
    looseness: np.ndarray,
    camera: Camera,
    background: np.ndarray,
    supersampling: int,
) -> Picture:
    """Draw a mesh (N, 3) in camera coordinates with its paint, lit softly, over a background (H, W, 3)."""
    fragments = rasterize_mesh(vertices, mesh.faces, finer(camera, supersampling))
    hits = Hits.of(fragments)
    uv = hits.mix(mesh.uv, mesh.face_uv.numpy())
    normal = hits.mix(mesh.normals(vertices), mesh.faces.numpy())
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    albedo = sample_bilinear(paint.albedo, uv)
    lit = np.clip(albedo * shading(normal)[:, None], 0, 1)
    loose = hits.mix(looseness[:, None], mesh.faces.numpy())
    layers = np.concatenate(
        [np.ones((len(uv), 1), np.float32), lit, albedo, hits.depth[:, None], normal, loose], 1
    )
    total = hits.average(layers, supersampling)
    coverage = total[..., 0]
    share = np.where(coverage > 0, 1 / np.maximum(coverage, 1e-9), 0)[..., None]
    mean_normal = total[..., 8:11] * share
    mean_normal /= np.maximum(np.linalg.norm(mean_normal, axis=-1, keepdims=True), 1e-6)
    behind = background * (1 - coverage[..., None])
    return Picture(
        image=total[..., 1:4] + behind,
        albedo=total[..., 4:7] + behind,
        coverage=coverage,
        depth=(total[..., 7:8] * share)[..., 0],
        normal=mean_normal * np.array([1, -1, -1], np.float32),
        label=hits.most_frequent(sample_nearest(paint.label, uv), supersampling),
        looseness=(total[..., 11:12] * share)[..., 0],
    )


def shading(normal: np.ndarray) -> np.ndarray:
    """Brightness (M,) of surfaces with camera-space normals (M, 3) under the one soft light."""
    towards = normal @ (LIGHT / np.linalg.norm(LIGHT))
    low, high = LIGHT_RANGE
    return low + (high - low) * (0.5 + 0.5 * towards) ** 1.5


def sample_bilinear(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Texture (T, T, C) at uv (M, 2) in [0, 1], texel centres at the borders (align_corners): (M, C)."""
    height, width = texture.shape[:2]
    x, y = uv[:, 0] * (width - 1), uv[:, 1] * (height - 1)
    x0, y0 = np.clip(x.astype(np.int64), 0, width - 2), np.clip(y.astype(np.int64), 0, height - 2)
    fx, fy = (x - x0)[:, None].astype(np.float32), (y - y0)[:, None].astype(np.float32)
    top = texture[y0, x0] * (1 - fx) + texture[y0, x0 + 1] * fx
    bottom = texture[y0 + 1, x0] * (1 - fx) + texture[y0 + 1, x0 + 1] * fx
    return top * (1 - fy) + bottom * fy


def sample_nearest(texture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Texture (T, T) at the texel nearest to uv (M, 2)."""
    height, width = texture.shape[:2]
    x = np.clip(np.rint(uv[:, 0] * (width - 1)), 0, width - 1).astype(np.int64)
    y = np.clip(np.rint(uv[:, 1] * (height - 1)), 0, height - 1).astype(np.int64)
    return texture[y, x]
