"""A split's UV textures made from its own images, part colours and fitted bodies (SPEC 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import binary_dilation, binary_erosion

from common.body_model.body import BodyModel
from common.body_model.identity import Identity
from common.errors import UserError
from common.io.image import check_image, read_mask, read_rgb, write_image
from common.io.parameters import read_camera, read_smplx_params
from common.rasterizer.mesh import interpolate_mesh, rasterize_mesh
from common.unwrapping import UnwrappedTextures, Unwrapping, UnwrapSettings, View, color_codes
from common.uv_map import TexturedMesh, UvMap
from data.dataset import Subject
from data.frame import CAPTURED, FrameFiles, failures

# A photo decides by itself; frames of a video differ in colour, so that their common opinion is asked for.
PHOTO = UnwrapSettings(n_fill=8)
VIDEO = UnwrapSettings(sharpness=4, n_robust_rounds=3, n_fill=8, is_part_voted=True)
NEAR_HAND = 0.02  # of the image height: fitted hands are that far off the pictured ones
MIN_HAND_SHARE = 0.5  # of a part colour's pixels that must lie on the fitted hands for it to mean a hand
MIN_PART_SHARE = 0.02  # of the hands' pixels; rarer colours there are borders of other parts
_FILES = {
    "smplx_texture_inpaint": "colour, unseen texels filled",
    "smplx_seg_inpaint": "part colours, unseen texels filled",
    "smplx_texture_mask": "which texels were seen",
    "smplx_texture": "colour, unseen texels black",
    "smplx_seg": "part colours, unseen texels black",
}
Progress = Callable[[list[int]], Iterable[int]]


def texture_files(folder: Path) -> list[Path]:
    """The files that are written for a split's folder."""
    return [folder / "smplx_optimized" / f"{name}.png" for name in _FILES]


def chosen_frames(frames: list[int], most: int) -> list[int]:
    """At most `most` frames, evenly spaced, the first and the last included."""
    if len(frames) <= most:
        return frames
    return [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, most).round().astype(int))]


def unwrap_split(
    subject: Subject,
    split: str,
    frames: list[int],
    body: BodyModel,
    size: int,
    use_albedo: bool = False,
    progress: Progress = iter,
) -> UnwrappedTextures:
    """Unwrap frames of a split onto the body's UV map; `body` need not be subdivided.

    The colours are the image's, with its light: the avatar's colour is compared with the image, and the face's
    initial colour with the photo (SPEC 12). `use_albedo` takes a photo's albedo image instead.
    """
    subject.check_identity(body.n_vertices)
    identity = subject.identity
    mesh = TexturedMesh.of(body)
    positions = body.shaped(identity).vertices.numpy()
    is_hand = body.parts_low.hand.numpy()
    unwrapping = Unwrapping(
        mesh, UvMap.of(mesh, size), positions, is_hand, PHOTO if split == CAPTURED else VIDEO
    )
    files = [FrameFiles(subject.root, split, index) for index in frames]
    hand_colors = find_hand_colors(files, body, identity)
    for index in progress(frames):
        entry = FrameFiles(subject.root, split, index)
        unwrapping.add(read_view(entry, body, identity, hand_colors, use_albedo))
    textures = unwrapping.finish()
    if not textures.is_seen.any():
        raise UserError(
            f"{subject.root / split}: no texel of the body is seen in any frame; look at the picture of "
            f"tools/doctor.py --subject_id {subject.root.name}, the fitted body must lie on the person"
        )
    return textures


def view_problems(files: FrameFiles, use_albedo: bool = False) -> list[str]:
    """All that is wrong with the files that `read_view` reads: others need not be there yet; fast."""
    problems = failures(lambda: check_image(files.image))
    size = None if problems else check_image(files.image)
    checks: list[Callable[[], Any]] = [
        lambda: read_camera(files.camera, *(size or (1, 1))),
        lambda: read_smplx_params(files.params),
        lambda: check_image(files.mask, size),
        lambda: check_image(files.seg[0], size),
    ]
    if use_albedo:
        checks.append(lambda: check_image(files.albedo, size))
    return problems + failures(*checks)


def write_textures(folder: Path, textures: UnwrappedTextures) -> None:
    """Write the five texture files into a split's folder."""
    is_seen = textures.is_seen[..., None].astype(np.float32)
    values = {
        "smplx_texture_inpaint": textures.color,
        "smplx_seg_inpaint": textures.part_color,
        "smplx_texture_mask": np.repeat(is_seen, 3, 2),
        "smplx_texture": textures.color * is_seen,
        "smplx_seg": textures.part_color * is_seen,
    }
    for path in texture_files(folder):
        write_image(path, torch.from_numpy(values[path.stem]).permute(2, 0, 1))


def read_view(
    files: FrameFiles,
    body: BodyModel,
    identity: Identity,
    hand_colors: np.ndarray,
    use_albedo: bool = False,
) -> View:
    """Read one frame; UserError names a file that is missing or wrong."""
    size = check_image(files.image)
    camera = read_camera(files.camera, *size)
    image = read_rgb(files.albedo if use_albedo else files.image, size)
    seg = read_rgb(files.seg[0], size).permute(1, 2, 0).numpy()
    with torch.no_grad():
        vertices = body.vertices(read_smplx_params(files.params), identity).vertices
    return View(
        vertices=vertices,
        camera=camera,
        image=image.permute(1, 2, 0).numpy(),
        part_colors=seg,
        mask=read_mask(files.mask, size)[0].numpy() > 0,
        is_hand=_is_among(seg, hand_colors),
    )


def find_hand_colors(files: list[FrameFiles], body: BodyModel, identity: Identity) -> np.ndarray:
    """Part colours (K,), as codes, that mean a hand: most of their pixels lie on or near the fitted hands.

    A hand then takes its colour from no sleeve, and a sleeve none from the hand. Where parts do not tell hands
    from arms there are none.
    """
    none = np.zeros(0, np.int64)
    on_hand: dict[int, int] = {}
    in_all: dict[int, int] = {}
    hand = body.parts_low.hand.float()[:, None]
    for entry in files:
        view = read_view(entry, body, identity, none)
        shown = (
            interpolate_mesh(rasterize_mesh(view.vertices, body.faces, view.camera), hand)[0].numpy() > 0.5
        )
        shown = binary_dilation(shown, iterations=max(1, round(NEAR_HAND * len(shown))))
        codes = color_codes(view.part_colors)
        for where, counts in ((view.mask & shown, on_hand), (binary_erosion(view.mask), in_all)):
            for code, count in zip(*np.unique(codes[where], return_counts=True), strict=True):
                counts[int(code)] = counts.get(int(code), 0) + int(count)
    n_hand = sum(on_hand.values())
    return np.array(
        [
            code
            for code, count in on_hand.items()
            if count > MIN_HAND_SHARE * in_all.get(code, 0) and count > MIN_PART_SHARE * n_hand
        ],
        np.int64,
    )


def _is_among(part_colors: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return np.isin(color_codes(part_colors), codes)
