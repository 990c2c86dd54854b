"""The pictures of a report: the photo against the avatar's renders, the texture maps, and a turntable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.avatar import Avatar
from common.boundary import boundary_map
from common.camera import Camera
from common.export.uv_texture import UvMesh, bake_texture
from common.gaussians import Gaussians
from common.io.image import to_uint8
from common.metrics import psnr, ssim
from common.pose import SmplxPose
from common.renders import (
    BodyRender,
    Channel,
    body_channels,
    body_render,
    boundary_channel,
    face_mesh_masks,
    over,
    render,
)
from common.turntable import turntable_cameras, turntable_pose, turntable_target
from data.frame import Frame
from main.config import AnimationConfig, LossConfig

ERROR_RANGE = 0.25  # mean absolute difference of the channels that is drawn in the last colour
_RAMP = ((0.0, 0.0, 0.02), (0.35, 0.07, 0.43), (0.74, 0.21, 0.33), (0.98, 0.56, 0.04), (0.99, 1.0, 0.64))
TURNTABLE_SIZE = 360  # pixels
N_VIEWS = 24
WHITE = 250  # a brighter 8-bit pixel is background


@dataclass(frozen=True)
class PhotoView:
    """One avatar, base or refined, in the photo's pose; images (C, H, W) in [0, 1] on white."""

    image: Tensor
    error: Tensor  # (1, H, W) mean absolute difference from the photo, both on white
    render: BodyRender
    boundary: Tensor  # (1, H, W)
    psnr: float  # dB, both on white
    ssim: float


@torch.no_grad()
def photo_views(
    avatar: Avatar, pose: SmplxPose, frame: Frame, config: LossConfig
) -> tuple[PhotoView, PhotoView]:
    """The base and the refined avatar by the photo's camera; everything on the photo's device."""
    posed = avatar(pose, frame.camera)
    vertices = avatar.body_vertices(pose, frame.camera)
    face = face_mesh_masks(vertices, avatar.body, frame.camera, closed_mouth=True)[:1]
    photo = on_white(frame.image, frame.mask)

    def view(gaussians: Gaussians, neutral: Tensor) -> PhotoView:
        channels = body_channels(gaussians, posed, avatar.body, frame.camera)
        rendered = render(gaussians, frame.camera, {**channels, "position": boundary_channel(neutral)})
        image = over(rendered["image"], rendered["mask"], 1.0)
        boundary = boundary_map(
            rendered["position"], rendered["mask"], face, config.boundary_threshold, config.boundary_ratio
        )
        error = (image - photo).abs().mean(0, keepdim=True)
        clamped = image.clamp(0, 1)
        figures = float(psnr(clamped, photo)), float(ssim(clamped, photo))
        return PhotoView(image, error, body_render(rendered), boundary, *figures)

    return view(posed.base, posed.base_neutral), view(posed.refined, posed.refined_neutral)


def on_white(image: Tensor, mask: Tensor) -> Tensor:
    """An image (3, H, W) with white where the mask (1, H, W) is 0."""
    return image * mask + (1 - mask)


def heat(values: Tensor, largest: float) -> np.ndarray:
    """Values (1, H, W) from 0 to `largest` as colours from black to pale yellow (H, W, 3) uint8."""
    ramp = np.array(_RAMP)
    scaled = (values[0].clamp(0, largest) / largest).cpu().numpy()
    positions = np.linspace(0, 1, len(ramp))
    colors = np.stack([np.interp(scaled, positions, ramp[:, channel]) for channel in range(3)], axis=-1)
    return (colors * 255).round().astype(np.uint8)


def depth_picture(depth: Tensor, mask: Tensor) -> np.ndarray:
    """Depth (1, H, W) where mask > 0.9 as grey levels, near bright, white outside: (H, W, 3) uint8."""
    is_inside = mask > 0.9
    if not is_inside.any():
        return to_uint8(torch.ones_like(depth))
    inside = depth[is_inside] / mask[is_inside]
    near, far = inside.min(), inside.max()
    grey = 0.9 - 0.85 * (depth / mask.clamp(min=0.9) - near) / (far - near).clamp(min=1e-6)
    return to_uint8(torch.where(is_inside, grey, torch.ones_like(grey)))


@torch.no_grad()
def texture_maps(avatar: Avatar, size: int) -> dict[str, Tensor]:
    """The avatar's colours in the body's UV space, each (3, size, size)."""
    mesh, colors = UvMesh.of(avatar.body), avatar.appearance
    named = {"colour": colors.rgb, "auxiliary colour": colors.rgb_aux, "parts": colors.seg}
    return {name: bake_texture(mesh, values, size) for name, values in named.items()}


@torch.no_grad()
def turntable(avatar: Avatar, settings: AnimationConfig) -> list[np.ndarray]:
    """The base avatar, left, and the refined one, right, in the neutral pose, from all around; no empty rows."""
    params = turntable_pose(avatar.body, settings.neutral_trans_m)
    focal = settings.neutral_focal * TURNTABLE_SIZE / settings.neutral_size
    target = turntable_target(avatar.body, params)
    world = Camera.identity((1.0, 1.0), (0.0, 0.0), 1, 1).to(params.trans)
    posed = avatar(SmplxPose.from_params(params), world)
    frames = []
    for camera in turntable_cameras(target, N_VIEWS, focal, TURNTABLE_SIZE):
        views = [_on_white(gaussians, camera) for gaussians in (posed.base, posed.refined)]
        frames.append(to_uint8(torch.cat(views, dim=2)))
    used_rows = np.flatnonzero((np.stack(frames) < WHITE).any(axis=(0, 2, 3)))
    if not len(used_rows):
        return frames
    return [frame[used_rows[0] : used_rows[-1] + 1] for frame in frames]


def _on_white(gaussians: Gaussians, camera: Camera) -> Tensor:
    channels = {"image": Channel(gaussians.rgb), "mask": Channel(torch.ones_like(gaussians.mean[:, :1]))}
    rendered = render(gaussians, camera, channels)
    return over(rendered["image"], rendered["mask"], 1.0)
