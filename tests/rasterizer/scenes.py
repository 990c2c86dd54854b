"""Random scenes and a scalar rasterizer for the tests of the rasterizer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from common.camera import Camera
from common.gaussians import Gaussians
from common.rasterizer import rasterize


@dataclass(frozen=True)
class Scene:
    """Everything one call of the rasterizer takes."""

    gaussians: Gaussians
    camera: Camera
    channels: Tensor  # (N, C)
    background: Tensor  # (C,)

    def leaves(self) -> dict[str, Tensor]:
        """The tensors that may receive gradients."""
        named = {
            "mean": self.gaussians.mean,
            "scale": self.gaussians.scale,
            "rotation": self.gaussians.rotation,
            "opacity": self.gaussians.opacity,
            "channels": self.channels,
        }
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def with_leaves(self, leaves: dict[str, Tensor]) -> Scene:
        """The same scene over other tensors."""
        geometry = {name: tensor for name, tensor in leaves.items() if name != "channels"}
        return replace(
            self,
            gaussians=replace(self.gaussians, **geometry),
            channels=leaves.get("channels", self.channels),
        )

    def to(self, device: torch.device | str) -> Scene:
        """The same scene on another device."""
        moved = replace(
            self,
            gaussians=replace(self.gaussians, rgb=self.gaussians.rgb.to(device)),
            camera=self.camera.to(device),
            background=self.background.to(device),
        )
        return moved.with_leaves({name: tensor.to(device) for name, tensor in self.leaves().items()})

    def render(self, backend: str, detached: list[bool] | None = None) -> Tensor:
        """Image (C, H, W)."""
        return rasterize(self.gaussians, self.camera, self.channels, detached, self.background, backend)


@dataclass(frozen=True)
class Backend:
    """A rasterizer as the tests call it."""

    name: str
    device: torch.device
    dtype: torch.dtype
    tolerance: float  # what rounding may change, of values up to about 1 and relative for gradients
    size: dict[str, int] = field(default_factory=dict)  # of scenes, where others are too large

    def scene(self, seed: int, **options: int | bool) -> Scene:
        """`random_scene` where and as this backend draws it."""
        return random_scene(seed, dtype=self.dtype, **{**options, **self.size}).to(self.device)  # type: ignore[arg-type]


def gradients(
    scene: Scene, backend: str, weight: Tensor, detached: list[bool] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Image, and gradients of its weighted sum by name."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in scene.leaves().items()}
    image = scene.with_leaves(leaves).render(backend, detached)
    (image * weight).sum().backward()
    return image.detach(), {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def relative_error(value: Tensor, expected: Tensor) -> float:
    """L2 norm of the difference over that of `expected`."""
    return float((value - expected).norm() / expected.norm().clamp(min=1e-30))


def random_rotation(generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """A rotation matrix within about half a radian of the identity."""
    axis = 0.3 * torch.randn(3, generator=generator, dtype=torch.float64)
    skew = torch.tensor(
        [[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]], dtype=torch.float64
    )
    return torch.linalg.matrix_exp(skew).to(dtype)


def random_scene(
    seed: int,
    n: int = 150,
    n_channels: int = 4,
    height: int = 37,
    width: int = 52,
    dtype: torch.dtype = torch.float64,
    is_general: bool = True,
) -> Scene:
    """Gaussians of all kinds: huge, tiny, off-screen, behind the camera; off-centre principal point.

    is_general: rotated, anisotropic, transparent; else isotropic and opaque as the avatar's.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=dtype)

    camera = Camera(
        R=random_rotation(generator, dtype),
        t=torch.tensor([0.1, -0.05, 0.4], dtype=dtype),
        focal=torch.tensor([55.0, 60.0], dtype=dtype),
        princpt=torch.tensor([0.36 * width, 0.7 * height], dtype=dtype),
        height=height,
        width=width,
    )
    depth = 0.5 + 3 * uniform(n)
    depth[: n // 10] = 0.5 - uniform(n // 10)
    cam = torch.stack([(uniform(n) - 0.5) * 2.2 * depth, (uniform(n) - 0.5) * 2.0 * depth, depth], -1)
    size = torch.exp(torch.empty(n, 1, dtype=dtype).uniform_(-5.5, -2.0, generator=generator))
    size[n // 10 : n // 10 + 4] *= 15
    size[n // 5 : n // 5 + 4] *= 0.02
    gaussians = Gaussians(mean=camera.camera_to_world(cam), scale=size, rgb=uniform(n, 3))
    if is_general:
        gaussians = replace(
            gaussians,
            scale=size * torch.exp(uniform(n, 3) * 2 - 1),
            rotation=torch.randn(n, 4, generator=generator, dtype=dtype),
            opacity=uniform(n),
        )
    return Scene(gaussians, camera, uniform(n, n_channels), uniform(n_channels))


def _scalar_footprint(scene: Scene, g: int) -> tuple[float, ...] | None:
    """Depth, centre, inverse covariance, opacity, tile range of one Gaussian, in plain floats (SPEC 10)."""
    camera = scene.camera
    R, t = camera.R.double().numpy(), camera.t.double().numpy()
    (fx, fy), (cx, cy) = camera.focal.tolist(), camera.princpt.tolist()
    x, y, z = R @ scene.gaussians.mean[g].double().numpy() + t
    if z <= 0.2:
        return None
    limit_x, limit_y = 1.3 * camera.width / (2 * fx), 1.3 * camera.height / (2 * fy)
    kx, ky = max(-limit_x, min(limit_x, x / z)), max(-limit_y, min(limit_y, y / z))
    jacobian = np.array([[fx / z, 0, -fx * kx / z], [0, fy / z, -fy * ky / z]])
    spread = np.diag(np.broadcast_to(scene.gaussians.scale[g].double().numpy(), 3))
    if scene.gaussians.rotation is not None:
        q = scene.gaussians.rotation[g].double()
        w, a, b, c = (q / q.norm()).tolist()
        cross = np.array([[0, -c, b], [c, 0, -a], [-b, a, 0]])
        spread = (np.eye(3) + 2 * w * cross + 2 * cross @ cross) @ spread
    cov = jacobian @ R @ spread @ spread.T @ R.T @ jacobian.T
    filtered = cov + 0.1 * np.eye(2)
    det0, det1 = np.linalg.det(cov), np.linalg.det(filtered)
    opacity = 1.0 if scene.gaussians.opacity is None else float(scene.gaussians.opacity[g])
    opacity *= math.sqrt(max(det0, 1e-6) / (max(det1, 1e-6) + 1e-6) + 1e-6) if min(det0, det1) > 1e-6 else 0.0
    middle = 0.5 * np.trace(filtered)
    radius = math.ceil(3 * math.sqrt(middle + math.sqrt(max(0.1, middle * middle - det1))))
    u, v = fx * x / z + cx - 0.5, fy * y / z + cy - 0.5
    tiles = [math.trunc((p + s * radius + o) / 16) for p in (u, v) for s, o in ((-1, 0), (1, 15))]
    return (z, u, v, opacity, *np.linalg.inv(filtered).reshape(-1), *tiles)


def scalar_image(scene: Scene) -> Tensor:
    """The image by one loop over pixels and one over Gaussians, straight from the text of SPEC 10."""
    height, width = scene.camera.height, scene.camera.width
    prints = [(_scalar_footprint(scene, g), g) for g in range(len(scene.channels))]
    ordered = sorted(((p, g) for p, g in prints if p is not None), key=lambda item: item[0][0])
    image = torch.empty(scene.channels.shape[1], height, width, dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            colour, T = torch.zeros(scene.channels.shape[1], dtype=torch.float64), 1.0
            for (_, u, v, opacity, xx, xy, _, yy, x0, x1, y0, y1), g in ordered:
                if not (x0 <= column // 16 < x1 and y0 <= row // 16 < y1):
                    continue
                dx, dy = u - column, v - row
                alpha = min(0.99, opacity * math.exp(-0.5 * (xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy)))
                if alpha < 1 / 255:
                    continue
                if T * (1 - alpha) < 1e-4:
                    break
                colour += alpha * T * scene.channels[g].double()
                T *= 1 - alpha
            image[:, row, column] = colour + T * scene.background.double()
    return image
