"""The rasterizer beside others: same Gaussians, same image, same run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from common.benchmark.timing import Timer
from common.camera import Camera
from common.gaussians import Gaussians
from common.rasterizer import rasterize

logger = logging.getLogger(__name__)
OURS = "this repository"
NOT_INSTALLED = "not installed"


@dataclass(frozen=True)
class RasterizerTimes:
    """Median milliseconds of a call; None: cannot be done here."""

    what: str
    n_channels: int
    forward: float | None
    forward_graph: float | None
    both: float | None  # forward and backward
    both_graph: float | None
    difference: float | None = None  # of the image from this repository's, on average; colours are in [0, 1]
    note: str = ""  # why there are no times


Draw = Callable[[list[Tensor]], Tensor]  # of mean, scale, channels


def measure_rasterizers(
    gaussians: Gaussians, camera: Camera, n_channels: int, timer: Timer, backend: str = "auto"
) -> list[RasterizerTimes]:
    """This repository's rasterizer, and on a GPU gsplat and mip-splatting where they can be imported."""

    def ours(leaves: list[Tensor]) -> Tensor:
        return rasterize(
            replace(gaussians, mean=leaves[0], scale=leaves[1]), camera, leaves[2], backend=backend
        )

    others: dict[str, Callable[[Gaussians, Camera], Draw]] = {"gsplat": _gsplat}
    if n_channels == 3:  # it knows no other number
        others["mip-splatting"] = _mip_splatting
    rows = [_measure(OURS, ours, ours, gaussians, n_channels, timer)]
    if not timer.is_cuda:
        return rows
    for name, prepare in others.items():
        try:
            rows.append(_measure(name, prepare(gaussians, camera), ours, gaussians, n_channels, timer))
        except ImportError:
            rows.append(RasterizerTimes(name, n_channels, None, None, None, None, note=NOT_INSTALLED))
        except Exception as error:  # noqa: BLE001 - a package of others that fails is only not compared
            first_line, *_ = str(error).strip().splitlines() or [""]
            reason = f"{type(error).__name__}: {first_line}"
            logger.warning("%s cannot be measured: %s", name, reason)
            rows.append(RasterizerTimes(name, n_channels, None, None, None, None, note=reason))
    return rows


def _measure(
    what: str, draw: Draw, ours: Draw, gaussians: Gaussians, n_channels: int, timer: Timer
) -> RasterizerTimes:
    generator = torch.Generator().manual_seed(n_channels)
    channels = torch.rand(len(gaussians.mean), n_channels, generator=generator).to(timer.device)
    leaves = [tensor.clone().requires_grad_() for tensor in (gaussians.mean, gaussians.scale, channels)]
    with torch.no_grad():
        image = draw(leaves)
        difference = float((image - ours(leaves)).abs().mean())
    # Of a generator of their own: another's capture that failed may have spoilt that of the device.
    weight = torch.randn(image.shape, generator=generator).to(timer.device)

    def forward() -> Tensor:
        with torch.no_grad():
            return draw(leaves)

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(draw(leaves), leaves, weight)

    return RasterizerTimes(
        what,
        n_channels,
        forward=timer.median_ms(forward),
        forward_graph=timer.captured_ms(forward),
        both=timer.median_ms(both),
        both_graph=timer.captured_ms(both),
        difference=None if draw is ours else difference,
    )


def _gsplat(gaussians: Gaussians, camera: Camera) -> Draw:
    from gsplat import rasterization

    device, n = gaussians.mean.device, len(gaussians.mean)
    quaternion = torch.tensor([1.0, 0.0, 0.0, 0.0], device=device).expand(n, 4).contiguous()
    opacity = torch.ones(n, device=device)
    intrinsics = torch.eye(3, device=device)
    intrinsics[0, 0], intrinsics[1, 1] = camera.focal
    intrinsics[:2, 2] = camera.princpt
    view = torch.eye(4, device=device)
    view[:3, :3], view[:3, 3] = camera.R, camera.t

    def draw(leaves: list[Tensor]) -> Tensor:
        mean, scale, channels = leaves
        image, _, _ = rasterization(
            mean,
            quaternion,
            scale.expand(-1, 3),
            opacity,
            channels,
            view[None],
            intrinsics[None],
            camera.width,
            camera.height,
            eps2d=0.1,
            packed=False,
            rasterize_mode="antialiased",
        )
        return image[0].permute(2, 0, 1)

    return draw


def _mip_splatting(gaussians: Gaussians, camera: Camera) -> Draw:
    import diff_gaussian_rasterization as package

    device, n = gaussians.mean.device, len(gaussians.mean)
    half = [camera.width / (2 * float(camera.focal[0])), camera.height / (2 * float(camera.focal[1]))]
    view = torch.eye(4, device=device)
    view[:3, :3], view[:3, 3] = camera.R, camera.t
    projection = torch.zeros(4, 4, device=device)
    projection[0, 0], projection[1, 1] = 1 / half[0], 1 / half[1]
    projection[2, 2], projection[2, 3], projection[3, 2] = 1.0, -0.01, 1.0
    settings: dict[str, Any] = {
        "image_height": camera.height,
        "image_width": camera.width,
        "tanfovx": half[0],
        "tanfovy": half[1],
        "bg": torch.zeros(3, device=device),
        "scale_modifier": 1.0,
        "viewmatrix": view.T.contiguous(),
        "projmatrix": (projection @ view).T.contiguous(),
        "sh_degree": 0,
        "campos": torch.linalg.inv(view)[:3, 3],
        "prefiltered": False,
        "debug": False,
        "kernel_size": 0.1,
        "subpixel_offset": torch.zeros(camera.height, camera.width, 2, device=device),
    }
    known = package.GaussianRasterizationSettings._fields
    if "kernel_size" not in known:
        raise ImportError("diff_gaussian_rasterization is not mip-splatting's")
    chosen = package.GaussianRasterizationSettings(**{k: v for k, v in settings.items() if k in known})
    opacity = torch.ones(n, 1, device=device)
    quaternion = torch.tensor([1.0, 0.0, 0.0, 0.0], device=device).expand(n, 4).contiguous()

    def draw(leaves: list[Tensor]) -> Tensor:
        mean, scale, channels = leaves
        image: Tensor = package.GaussianRasterizer(chosen)(
            means3D=mean,
            means2D=torch.zeros_like(mean, requires_grad=True),
            opacities=opacity,
            colors_precomp=channels,
            scales=scale.expand(-1, 3),
            rotations=quaternion,
        )[0]
        return image

    return draw
