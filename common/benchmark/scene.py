"""What is measured on: Gaussians of the demo body for the rasterizer, poses for the animation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from common.body_model.body import BodyModel
from common.body_model.files import load_body_data
from common.camera import Camera
from common.gaussians import Gaussians
from common.pose import SmplxParams
from common.texture import initial_log_scale

FOCAL_PX = 1500.0  # of an image of 1024 rows
DISTANCE_M = 2.9  # fills the height of a 1024 pixel image
FULL_HEIGHT = 1024


def posed_gaussians(body_path: Path, device: torch.device, subdivisions: int) -> Gaussians:
    """The demo body with bent arms and legs, in camera space, one isotropic opaque Gaussian a vertex."""
    body = BodyModel(load_body_data(body_path, "male"), subdivisions)
    generator = torch.Generator().manual_seed(0)
    zeros = SmplxParams.zeros()
    params = replace(
        zeros,
        root_pose=torch.tensor([3.0, 0.2, 0.1]),
        body_pose=0.25 * torch.randn(zeros.body_pose.shape, generator=generator),
    )
    vertices = body.subdivider.interpolate(body.vertices(params, None).vertices)
    centre = (vertices.amin(0) + vertices.amax(0)) / 2
    mean = vertices - centre + torch.tensor([0.0, 0.0, DISTANCE_M])
    scale = initial_log_scale(body.subdivider.interpolate(body.neutral_vertices(None, jaw_open=True))).exp()
    return Gaussians(
        mean.to(device), scale.to(device), torch.rand(mean.shape, generator=generator).to(device)
    )


def front_camera(height: int, width: int, device: torch.device) -> Camera:
    """The camera in whose space the Gaussians are."""
    focal = FOCAL_PX * height / FULL_HEIGHT
    return Camera.identity((focal, focal), (width / 2, height / 2), height, width).to(device)
