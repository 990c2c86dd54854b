"""Pictures of what the viewer shows, made by the project's rasterizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.camera import Camera
from common.errors import UserError
from common.gaussians import Gaussians
from common.renders import Channel, over, render
from common.viewer.state import up_of

MAX_SIDE_PX = 4096
FOV = 0.6  # vertical angle of view at the beginning, radians
ROOM = 1.3  # around the avatar at the beginning
FOV_RANGE = (0.01, 3.0)  # radians
FARTHEST_M = 1e4


def eye_camera(
    wxyz: Sequence[float], position: Sequence[float], fov: float, height: int, width: int
) -> Camera:
    """A page's camera: its turn (w, x, y, z) and place in the world (OpenCV axes, metres), vertical angle of view.

    UserError for numbers that no camera can have. The picture is at most MAX_SIDE_PX wide and high.
    """
    import roma  # late: importing it is slow

    turn, place = torch.tensor(list(wxyz)).double(), torch.tensor(list(position)).double()
    is_finite = all(bool(torch.isfinite(value).all()) for value in (turn, place)) and math.isfinite(fov)
    if not is_finite or turn.norm() < 1e-3 or place.abs().max() > FARTHEST_M or min(height, width) < 1:
        raise UserError("the page has no usable camera; load it again")
    R = roma.unitquat_to_rotmat(torch.nn.functional.normalize(turn, dim=0)[[1, 2, 3, 0]]).T
    height, width = min(int(height), MAX_SIDE_PX), min(int(width), MAX_SIDE_PX)
    focal = height / (2 * math.tan(min(max(fov, FOV_RANGE[0]), FOV_RANGE[1]) / 2))
    centre = torch.tensor([width / 2, height / 2])
    return Camera(R, -R @ place, torch.tensor([focal, focal]), centre, height, width).to(torch.float32)


@dataclass(frozen=True)
class View:
    """A place to look from; world space, metres."""

    position: tuple[float, float, float]
    look_at: tuple[float, float, float]
    up: tuple[float, float, float]


def first_view(mean: Tensor, camera: Camera) -> View:
    """All Gaussians (N, 3) in the picture's height (FOV), in the direction of `camera`."""
    mean = mean.detach().cpu()
    centre = (mean.amin(0) + mean.amax(0)) / 2
    radius = (mean - centre).norm(dim=1).max()
    position = centre - camera.R[2] * ROOM * radius / math.sin(FOV / 2)
    return View(*((float(x), float(y), float(z)) for x, y, z in (position, centre, up_of(camera.R))))


@torch.no_grad()
def picture(gaussians: Gaussians, eye: Camera, background: tuple[int, int, int]) -> Tensor:
    """The Gaussians (3, H, W) over a background colour (0 to 255), in [0, 1]."""
    ones = torch.ones_like(gaussians.mean[:, :1])
    view = render(gaussians, eye, {"image": Channel(gaussians.rgb), "mask": Channel(ones)})
    colour = gaussians.rgb.new_tensor(background)[:, None, None] / 255
    return over(view["image"], view["mask"], colour).clamp(0, 1)
