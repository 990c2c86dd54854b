"""Colours and sizes that the Gaussians start from: UV textures sampled at the vertices, spacing (SPEC 9)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from common.body_model.body import BodyModel

LOGIT_EPS = 1e-4
MIN_SQUARED_SPACING = 1e-7  # square metres


def sample_vertex_colors(texture: Tensor, body: BodyModel) -> Tensor:
    """Colours (N, C) of the body's subdivided vertices from a UV texture (C, H, W) (SPEC 9)."""
    uv, is_seam = vertex_uv(body.faces, body.face_uv, body.vertex_uv, body.n_vertices)
    return sample_subdivided(texture, uv, is_seam, body.subdivider.interpolate)


def sample_subdivided(
    texture: Tensor, uv: Tensor, is_seam: Tensor, interpolate: Callable[[Tensor], Tensor]
) -> Tensor:
    """Colours (N, C) of subdivided vertices from texture (C, H, W), vertex UV (V, 2) and seam flags (V,).

    Midpoints are sampled at their interpolated UV. Next to a seam that UV would lie anywhere in the texture;
    vertices with a share of a seam vertex take the interpolated colours of the coarse vertices instead.
    """
    uv = uv.to(texture)
    fine = sample_texture(texture, interpolate(uv))
    coarse = interpolate(sample_texture(texture, uv))
    is_near_seam = interpolate(is_seam.to(texture)) > 0
    return torch.where(is_near_seam[:, None], coarse, fine)


def vertex_uv(faces: Tensor, face_uv: Tensor, uv: Tensor, n_vertices: int) -> tuple[Tensor, Tensor]:
    """One UV (V, 2) a vertex and whether it has several (V,); faces and face_uv (F, 3) into uv (U, 2).

    A vertex takes the UV of its last face corner, going face by face, then corner by corner; a vertex of no
    face has UV 0.
    """
    vertex, corner_uv = faces.reshape(-1), face_uv.reshape(-1)
    order = torch.arange(len(vertex), device=vertex.device)
    last = torch.full((n_vertices,), -1, device=vertex.device).scatter_reduce(0, vertex, order, "amax")
    chosen = corner_uv[last.clamp(min=0)]
    result = torch.where((last >= 0)[:, None], uv[chosen], torch.zeros_like(uv[:1]))
    is_other = (corner_uv != chosen[vertex]).to(torch.int64)
    n_other = torch.zeros(n_vertices, dtype=torch.int64, device=vertex.device).index_add(0, vertex, is_other)
    return result, n_other > 0


def sample_texture(texture: Tensor, uv: Tensor) -> Tensor:
    """Bilinear samples (N, C) of texture (C, H, W) at uv (N, 2): corner pixel centres are 0 and 1."""
    grid = (2 * uv - 1)[None, None]
    return F.grid_sample(texture[None], grid, mode="bilinear", align_corners=True)[0, :, 0].T


def to_logit(color: Tensor, eps: float = LOGIT_EPS) -> Tensor:
    """Inverse of the sigmoid; colours are first clamped to [eps, 1 - eps]."""
    return torch.logit(color, eps=eps)


def initial_log_scale(vertices: Tensor) -> Tensor:
    """Log (N, 1) of the root mean squared distance to the three nearest other vertices (N, 3), metres."""
    from scipy.spatial import cKDTree  # late: a start that has the scales already does without

    points = vertices.detach().cpu().double().numpy()
    distance, _ = cKDTree(points, balanced_tree=False).query(points, k=4, workers=-1)  # the first: itself
    mean_squared = torch.from_numpy((distance[:, 1:] ** 2).mean(1, keepdims=True)).to(vertices)
    return 0.5 * torch.log(mean_squared.clamp(min=MIN_SQUARED_SPACING))
