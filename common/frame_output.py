"""The files that testing writes for one frame (SPEC 5)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from common.avatar import PosedAvatar
from common.body_model.body import BodyModel
from common.boundary import MASK_THRESHOLD
from common.io.array import write_array
from common.io.image import to_uint8, write_image
from common.io.ply import write_mesh
from common.renders import over, render_view
from data.dataset import Frame


def write_frame(
    folder: Path, frame: Frame, posed: PosedAvatar, body_vertices: Tensor, body: BodyModel
) -> None:
    """Images, masks, normals, depths and meshes of base and refined avatar, and the target image.

    `body_vertices` (V, 3): the SMPL-X function's vertices in world space.
    """
    name = f"{frame.split}_{frame.index}"
    for suffix, gaussians in (("", posed.base), ("_refined", posed.refined)):
        view = render_view(gaussians, body, frame.camera)
        write_image(folder / f"{name}{suffix}.png", over(view["image"], view["mask"], 1.0))
        is_avatar = (view["mask"] > MASK_THRESHOLD).to(view["mask"].dtype)
        write_image(folder / f"{name}_mask{suffix}.png", is_avatar)
        write_image(folder / f"{name}_normal{suffix}.png", view["normal"])
        write_array(folder / f"{name}_normal{suffix}.npy", (view["normal"] * 2 - 1).cpu().numpy())
        write_array(folder / f"{name}_depth{suffix}.npy", view["depth"].cpu().numpy())
        write_mesh(
            folder / f"{name}{suffix}.ply",
            gaussians.mean.cpu().numpy(),
            body.faces_high.cpu().numpy(),
            to_uint8(gaussians.rgb.T[:, None])[0],
        )
    write_image(folder / f"{name}_gt.png", frame.image)
    write_mesh(folder / f"{name}_smplx.ply", body_vertices.cpu().numpy(), body.faces.cpu().numpy())
