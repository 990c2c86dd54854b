"""What is rendered of an avatar: named channels of one rasterizer pass per Gaussian set and camera (SPEC 11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common import gpu
from common.avatar import PosedAvatar
from common.body_model.body import BodyModel
from common.boundary import boundary_map
from common.camera import Camera
from common.constants import constant
from common.gaussians import Gaussians
from common.gpu.branch import Branch
from common.mesh import vertex_normals
from common.rasterizer import Scene, interpolate_mesh, rasterize_mesh, rasterize_together
from common.rasterizer.mesh import NEAR_M


@dataclass(frozen=True)
class Channel:
    """Values that are splatted like a colour."""

    value: Tensor  # (N, C)
    is_detached: bool = False  # sends gradient to `value` only, never to the geometry


Drawing = tuple[Gaussians, Camera, Mapping[str, Channel]]


def render(gaussians: Gaussians, camera: Camera, channels: Mapping[str, Channel]) -> dict[str, Tensor]:
    """Splat all channels in one rasterizer pass; each comes back as (C, H, W) on a background of 0."""
    return render_together([(gaussians, camera, channels)])[0]


def render_together(drawings: Sequence[Drawing]) -> list[dict[str, Tensor]]:
    """`render` for several sets of Gaussians or cameras; on a GPU in one call."""
    scenes = []
    for gaussians, camera, channels in drawings:
        detached = [
            channel.is_detached for channel in channels.values() for _ in range(channel.value.shape[1])
        ]
        stacked = torch.cat([channel.value for channel in channels.values()], dim=1)
        scenes.append(Scene(gaussians, camera, stacked, detached))
    return [
        dict(
            zip(channels, image.split([channel.value.shape[1] for channel in channels.values()]), strict=True)
        )
        for image, (_, _, channels) in zip(rasterize_together(scenes), drawings, strict=True)
    ]


def over(image: Tensor, mask: Tensor, background: Tensor | float) -> Tensor:
    """A premultiplied image (C, H, W) over a background: image + background (1 - mask)."""
    return image + background * (1 - mask)


@dataclass(frozen=True)
class BodyRender:
    """Renders of one Gaussian set by one camera; images are premultiplied (on black)."""

    image: Tensor  # (3, H, W)
    mask: Tensor  # (1, H, W)
    image_aux: Tensor  # (3, H, W) auxiliary colour, geometry detached
    image_detached: Tensor  # (3, H, W) own colour, geometry detached
    depth: Tensor  # (1, H, W) metres times mask
    normal: Tensor  # (3, H, W) in [0, 1], background 0
    seg: Tensor  # (3, H, W)


@dataclass(frozen=True)
class FaceRender:
    """Renders of the face: all Gaussians splatted, those outside expression and eyes black."""

    image: Tensor  # (3, H, W)
    image_initial: Tensor  # (3, H, W) in the colours of the initialisation, constant
    image_aux: Tensor  # (3, H, W)
    mask: Tensor  # (1, H, W) expression and eyes
    eye_mask: Tensor  # (1, H, W)
    image_detached: Tensor  # (3, H, W) all Gaussians' colours, geometry detached
    body_mask: Tensor  # (1, H, W) all Gaussians


@dataclass(frozen=True)
class HandRender:
    """Each hand's Gaussians alone; right, then left."""

    image: Tensor  # (6, H, W) geometry detached
    mask: Tensor  # (2, H, W)


def normal_channel(mean: Tensor, body: BodyModel, camera: Camera) -> Channel:
    """Normals (nx, -ny, -nz) in camera space of the surface through the Gaussians' means."""
    normals = camera.rotate_to_camera(vertex_normals(mean, body.faces_high))
    return Channel(normals * constant((1.0, -1.0, -1.0), normals))


def view_channels(gaussians: Gaussians, body: BodyModel, camera: Camera) -> dict[str, Channel]:
    """What every view needs: image, mask, depth and normals."""
    mean = gaussians.mean
    return {
        "image": Channel(gaussians.rgb),
        "mask": Channel(torch.ones_like(mean[:, :1])),
        "depth": Channel(camera.world_to_camera(mean)[:, 2:], is_detached=True),
        "normal": normal_channel(mean, body, camera),
    }


def normal_on_background(normal: Tensor, mask: Tensor) -> Tensor:
    """Rendered normals over a background of -1, mapped from [-1, 1] to [0, 1]."""
    return (over(normal, mask, -1.0) + 1) / 2


def body_channels(
    gaussians: Gaussians, posed: PosedAvatar, body: BodyModel, camera: Camera
) -> dict[str, Channel]:
    """The channels of a BodyRender."""
    return {
        **view_channels(gaussians, body, camera),
        "image_aux": Channel(posed.appearance.rgb_aux, is_detached=True),
        "image_detached": Channel(gaussians.rgb, is_detached=True),
        "seg": Channel(posed.appearance.seg),
    }


def body_render(rendered: Mapping[str, Tensor]) -> BodyRender:
    """BodyRender from the rasterizer's output for body_channels."""
    return BodyRender(
        image=rendered["image"],
        mask=rendered["mask"],
        image_aux=rendered["image_aux"],
        image_detached=rendered["image_detached"],
        depth=rendered["depth"],
        normal=normal_on_background(rendered["normal"], rendered["mask"]),
        seg=rendered["seg"],
    )


def face_channels(posed: PosedAvatar, body: BodyModel, initial_rgb: Tensor) -> dict[str, Channel]:
    """The channels of a FaceRender but the image with all colours and its mask."""
    parts = body.parts_high
    dtype = posed.scale.dtype
    is_face = (parts.expression | parts.eye).to(dtype)[:, None]
    return {
        "face_image": Channel(posed.appearance.rgb * is_face),
        "face_image_initial": Channel(initial_rgb * is_face),
        "face_image_aux": Channel(posed.appearance.rgb_aux * is_face),
        "face_mask": Channel(is_face),
        "eye_mask": Channel(parts.eye.to(dtype)[:, None]),
    }


def face_render(rendered: Mapping[str, Tensor]) -> FaceRender:
    """FaceRender from the rasterizer's output."""
    return FaceRender(
        image=rendered["face_image"],
        image_initial=rendered["face_image_initial"],
        image_aux=rendered["face_image_aux"],
        mask=rendered["face_mask"],
        eye_mask=rendered["eye_mask"],
        image_detached=rendered["image_detached"],
        body_mask=rendered["mask"],
    )


def boundary_channel(neutral_mean: Tensor) -> Channel:
    """Neutral positions in metres as colours, (c - mean c + 1) / 2; constants."""
    position = neutral_mean.detach()
    return Channel((position - position.mean(0) + 1) / 2, is_detached=True)


def render_hands(gaussians: Gaussians, body: BodyModel, camera: Camera) -> HandRender:
    """Right and left hand, each by itself."""
    drawings: list[Drawing] = []
    for index in (body.right_hand_index, body.left_hand_index):
        hand = gaussians.select(index)
        channels = {
            "image": Channel(hand.rgb, is_detached=True),
            "mask": Channel(torch.ones_like(hand.mean[:, :1])),
        }
        drawings.append((hand, camera, channels))
    rendered = render_together(drawings)
    return HandRender(*(torch.cat([hand[name] for hand in rendered]) for name in ("image", "mask")))


@torch.no_grad()
def mesh_masks(vertices: Tensor, faces: Tensor, camera: Camera, attributes: Tensor) -> Tensor:
    """Per-vertex attributes (V, A) of the nearest surface, (A, H, W); vertices (V, 3) in world space."""
    if gpu.is_on(vertices):
        from common.gpu.triangles import draw_attributes

        return draw_attributes(camera.world_to_camera(vertices), faces, camera, attributes, NEAR_M)
    fragments = rasterize_mesh(camera.world_to_camera(vertices), faces, camera)
    return interpolate_mesh(fragments, attributes)


@torch.no_grad()
def hand_mesh_mask(vertices: Tensor, body: BodyModel, camera: Camera) -> Tensor:
    """Silhouettes (2, H, W) of the right and the left hand's own triangles; vertices (V, 3) in world space."""
    ones = torch.ones_like(vertices[:, :1])
    hands = (body.right_hand_faces, body.left_hand_faces)
    return torch.cat([mesh_masks(vertices, faces, camera, ones) for faces in hands])


@torch.no_grad()
def face_mesh_masks(vertices: Tensor, body: BodyModel, camera: Camera, closed_mouth: bool = False) -> Tensor:
    """Face and eye masks (2, H, W) of the whole low-resolution mesh; vertices (V, 3) in world space."""
    parts = body.parts_low
    attributes = torch.stack([parts.expression | parts.eye, parts.eye], dim=1).to(vertices.dtype)
    faces = body.faces_closed_mouth if closed_mouth else body.faces
    return mesh_masks(vertices, faces, camera, attributes)


@dataclass(frozen=True)
class Boundaries:
    """Boundary maps of one photo."""

    base: Tensor  # (1, H, W)
    refined: Tensor  # (1, H, W)
    patch: Tensor  # (1, h, w)


@dataclass(frozen=True)
class PhotoRenders:
    """What only photos need: the face patch and the depth boundaries."""

    patch: FaceRender
    patch_face_mask: Tensor  # (1, h, w) of the mesh, constant
    boundaries: Boundaries


@dataclass(frozen=True)
class FitRenders:
    """All that pose fitting needs of one frame."""

    base: BodyRender
    refined: BodyRender


@dataclass(frozen=True)
class TrainingRenders:
    """All that the training losses need of one frame."""

    base: BodyRender
    refined: BodyRender
    face: FaceRender
    hands: HandRender
    hand_mesh_mask: Tensor  # (2, H, W) right, left, constant
    eye_mesh_mask: Tensor  # (1, H, W) constant
    photo: PhotoRenders | None  # of captured frames


@dataclass(frozen=True)
class BoundarySettings:
    """How depth boundaries are found (SPEC 11)."""

    threshold: float  # Sobel magnitude of rendered positions
    ratio: float  # dilation as a fraction of the mask box's larger side, image
    ratio_patch: float  # the same, face patch


def render_view(gaussians: Gaussians, body: BodyModel, camera: Camera) -> dict[str, Tensor]:
    """Image (premultiplied), mask, depth and normals ([0, 1]) for testing and animation, in one pass."""
    rendered = render(gaussians, camera, view_channels(gaussians, body, camera))
    rendered["normal"] = normal_on_background(rendered["normal"], rendered["mask"])
    return rendered


def render_fit(posed: PosedAvatar, body: BodyModel, camera: Camera) -> FitRenders:
    """The renders of pose fitting, of base and refined avatar together."""
    drawings = [
        (gaussians, camera, body_channels(gaussians, posed, body, camera))
        for gaussians in (posed.base, posed.refined)
    ]
    return FitRenders(*map(body_render, render_together(drawings)))


def render_training(
    posed: PosedAvatar,
    body_vertices: Callable[[], Tensor],
    body: BodyModel,
    camera: Camera,
    initial_rgb: Tensor,
    face_camera: Camera | None,
    boundary: BoundarySettings,
) -> TrainingRenders:
    """The renders of a training step: base, refined and, on photos, the face patch together, and the hands.

    `body_vertices` gives the SMPL-X function's vertices (V, 3) in world space, for the mesh masks, constants;
    `face_camera` is given for captured frames only.
    """
    meshes, beside = Branch(posed.base_mean, 0), Branch(posed.base_mean, 1)
    with meshes.aside():
        masks = mesh_masks_of_step(body_vertices(), body, camera, face_camera)
    base_channels = {
        **body_channels(posed.base, posed, body, camera),
        **face_channels(posed, body, initial_rgb),
    }
    refined_channels = body_channels(posed.refined, posed, body, camera)
    if face_camera is not None:
        base_channels["position"] = boundary_channel(posed.base_neutral)
        refined_channels["position"] = boundary_channel(posed.refined_neutral)
    with beside.aside():
        hands = render_hands(posed.base, body, camera)
    drawings: list[Drawing] = [(posed.base, camera, base_channels), (posed.refined, camera, refined_channels)]
    if face_camera is not None:
        drawings.append((posed.base, face_camera, _patch_channels(posed, body, initial_rgb)))
    base, refined, *patches = render_together(drawings)
    patch = patches[0] if patches else None
    meshes.join()
    beside.join()
    photo = None
    if patch is not None:
        boundaries = Boundaries(
            base=_boundary(base, masks["closed_face"], boundary.threshold, boundary.ratio),
            refined=_boundary(refined, masks["closed_face"], boundary.threshold, boundary.ratio),
            patch=_boundary(patch, masks["closed_patch_face"], boundary.threshold, boundary.ratio_patch),
        )
        photo = PhotoRenders(face_render(patch), masks["patch_face"], boundaries)
    gpu.keep(posed, base, refined, hands, patch, masks)
    return TrainingRenders(
        base=body_render(base),
        refined=body_render(refined),
        face=face_render(base),
        hands=hands,
        hand_mesh_mask=masks["hand"],
        eye_mesh_mask=masks["eye"],
        photo=photo,
    )


def mesh_masks_of_step(
    vertices: Tensor, body: BodyModel, camera: Camera, face_camera: Camera | None
) -> dict[str, Tensor]:
    """Masks of the mesh: `hand` (2, H, W), `eye` (1, H, W), and on photos faces, closed ones for the boundaries."""
    gpu.keep(vertices)
    masks = {
        "hand": hand_mesh_mask(vertices, body, camera),
        "eye": face_mesh_masks(vertices, body, camera)[1:],
    }
    if face_camera is not None:
        masks["closed_face"] = face_mesh_masks(vertices, body, camera, closed_mouth=True)[:1]
        masks["closed_patch_face"] = face_mesh_masks(vertices, body, face_camera, closed_mouth=True)[:1]
        masks["patch_face"] = face_mesh_masks(vertices, body, face_camera)[:1]
    return masks


def _boundary(rendered: Mapping[str, Tensor], face_mask: Tensor, threshold: float, ratio: float) -> Tensor:
    return boundary_map(rendered["position"], rendered["mask"], face_mask, threshold, ratio)


def _patch_channels(posed: PosedAvatar, body: BodyModel, initial_rgb: Tensor) -> dict[str, Channel]:
    """The face patch: face channels, all colours with detached geometry, mask, and positions of the face."""
    channels = face_channels(posed, body, initial_rgb)
    position = boundary_channel(posed.base_neutral)
    return {
        **channels,
        "image_detached": Channel(posed.appearance.rgb, is_detached=True),
        "mask": Channel(torch.ones_like(posed.scale), is_detached=True),
        "position": Channel(position.value * channels["face_mask"].value, is_detached=True),
    }
