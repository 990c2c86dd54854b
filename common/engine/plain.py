"""A frame by way of the training renders: the reference that the engine is compared and timed with (SPEC 15)."""

from __future__ import annotations

import torch
from torch import Tensor

from common.avatar import Avatar
from common.camera import Camera
from common.pose import SmplxParams, SmplxPose
from common.renders import over, render_view


@torch.no_grad()
def render_plain(
    avatar: Avatar, params: SmplxParams, camera: Camera, background: Tensor | float = 1.0
) -> Tensor:
    """The refined avatar (3, H, W) over white or over a background (3, H, W), on the avatar's device."""
    device = avatar.scale.device
    camera = camera.to(device)
    posed = avatar(SmplxPose.from_params(params.to(device)), camera)
    view = render_view(posed.refined, avatar.body, camera)
    behind = background.to(device) if isinstance(background, Tensor) else background
    return over(view["image"], view["mask"], behind)
