"""How far the engine's pictures are from the plain path's, and what of it the order of nearly equal depths explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from common.avatar import Avatar
from common.camera import Camera
from common.engine import Engine, Shot
from common.engine.plain import render_plain
from common.io.image import to_uint8
from common.pose import SmplxPose
from common.rasterizer import rasterize
from common.renders import over


@dataclass(frozen=True)
class Difference:
    """Of 8-bit pictures from others."""

    levels: int  # at most
    share_over_one: float  # of the values that differ by more than one level

    @staticmethod
    def between(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> Difference:
        """Of all pictures together."""
        differences = np.abs(np.stack(found).astype(int) - np.stack(expected))
        return Difference(int(differences.max()), float((differences > 1).mean()))


@dataclass(frozen=True)
class Agreement:
    """Differences from the plain path's pictures."""

    engine: Difference
    same_depths: Difference  # the engine's positions, but each Gaussian at the plain path's depth
    one_ulp: Difference  # the plain path itself, each coordinate moved to the next or last float32


@torch.no_grad()
def measure_agreement(avatar: Avatar, engine: Engine, shots: Sequence[Shot]) -> Agreement:
    """Draw the shots by the plain path and by the engine, which was made of this avatar and draws pictures."""
    static, device = engine.static, avatar.scale.device
    plain, in_view, same_depths, one_ulp = [], [], [], []

    def draw(mean: Tensor, camera: Camera) -> np.ndarray:
        image = rasterize(replace(static.drawn, mean=mean), camera, static.channels)
        return to_uint8(over(image[:3], image[3:], 1.0))

    for number, shot in enumerate(shots):
        camera = shot.camera.to(device)
        mean = avatar(SmplxPose.from_params(shot.params.to(device)), camera).refined_mean
        plain.append(to_uint8(render_plain(avatar, shot.params, shot.camera)))
        generator = torch.Generator().manual_seed(number)
        side = torch.rand(mean.shape, generator=generator).to(device) - 0.5
        one_ulp.append(draw(torch.nextafter(mean, mean + side), camera))
        # In a camera's own space a Gaussian's depth is its z, free of rounding.
        still = replace(camera, R=torch.eye(3, device=device), t=torch.zeros(3, device=device))
        expected, found = (_in_camera(points, camera) for points in (mean, engine.mean(shot)))
        in_view.append(draw(expected, still))
        same_depths.append(draw(torch.cat([found[:, :2], expected[:, 2:]], dim=1), still))
    return Agreement(
        engine=Difference.between(list(engine.pictures(shots)), plain),
        same_depths=Difference.between(same_depths, in_view),
        one_ulp=Difference.between(one_ulp, plain),
    )


def _in_camera(points: Tensor, camera: Camera) -> Tensor:
    """World points (N, 3) in camera space, rounded once."""
    return (points.double() @ camera.R.double().T + camera.t.double()).float()
