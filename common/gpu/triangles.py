"""Drawing of meshes on the GPU: the nearest triangle's attributes at every pixel centre (SPEC 11)."""

from __future__ import annotations

import torch
from torch import Tensor

from common.camera import Camera
from common.gpu import triangle_kernels as kernels

BLOCK = 32  # pixels of a triangle at a time
PIXELS = 256


def draw_attributes(
    vertices_cam: Tensor, faces: Tensor, camera: Camera, attributes: Tensor, near: float
) -> Tensor:
    """Attributes (V, A) of the nearest of the triangles (F, 3) at every pixel: (A, H, W), 0 where there is none.

    Coverage and barycentric coordinates are in double precision, depth is compared in single precision; of
    equally near triangles the first one wins. No gradient.
    """
    height, width = camera.height, camera.width
    vertices = vertices_cam.detach().contiguous()
    intrinsics = torch.cat([camera.focal, camera.princpt]).to(vertices)
    nearest = torch.full((height * width,), kernels.NOTHING.value, dtype=torch.int64, device=vertices.device)
    attributes = attributes.detach().contiguous()
    if len(faces) == 0:
        return attributes.new_zeros(attributes.shape[1], height, width)
    kernels.draw[(len(faces),)](
        vertices, faces, intrinsics, nearest, height, width, NEAR=near, BLOCK=BLOCK, num_warps=1
    )
    image = attributes.new_empty(attributes.shape[1], height, width)
    kernels.shade[(-(-height * width // PIXELS),)](
        vertices, faces, intrinsics, nearest, attributes, image, height * width, width,
        n_attributes=attributes.shape[1], BLOCK=PIXELS,
    )  # fmt: skip
    return image
