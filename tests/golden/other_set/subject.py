"""Another subject, motion and evaluated result: the source's poses and cameras, moved, at other sizes and frames."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import roma
import torch
from torch import Tensor

from common.body_model.body import BodyModel
from common.body_model.identity import Identity
from common.camera import Camera
from common.evaluation import evaluate
from common.io.image import image_size, read_mask, read_rgb, write_image
from common.io.parameters import read_camera, read_smplx_params, write_camera, write_smplx_params
from common.pose import SmplxParams
from common.rasterizer import interpolate_mesh, rasterize_mesh
from common.rectangle import Rectangle
from tests.golden.other_set.folder import OtherSet

SUBJECT = "toy_subject"
SHIFT = (2, -1)  # of the target masks against the silhouettes, pixels
HOLES = 0.1  # share of pixels without valid normals, depth, parts


def moved_camera(other: OtherSet, file: Path, source_size: tuple[int, int], size: tuple[int, int]) -> Camera:
    """The source's camera at another image size, a little elsewhere; one at the origin stays there."""
    camera = read_camera(file, *source_size)
    scale = min(new / old for new, old in zip(size, source_size, strict=True))
    middle, source_middle = (torch.tensor([s[1], s[0]]) / 2 for s in (size, source_size))
    focal = camera.focal * scale * torch.from_numpy(1 + other.normal(2, size=0.02))
    princpt = (camera.princpt - source_middle) * scale + middle + torch.from_numpy(other.normal(2, size=0.5))
    R, t = camera.R, camera.t
    if not torch.equal(R, torch.eye(3)):
        R = roma.rotvec_to_rotmat(torch.from_numpy(other.normal(3, size=0.05))) @ R
        t = t + torch.from_numpy(other.normal(3, size=0.02))
    return Camera(R, t, focal, princpt, *size)


def moved_params(other: OtherSet, file: Path) -> SmplxParams:
    """The source's parameters with other expression and slightly other pose."""
    params = read_smplx_params(file)
    sizes = {"expr": 0.5, "trans": 0.03}
    return SmplxParams(
        **{
            name: value + torch.from_numpy(other.normal(*value.shape, size=sizes.get(name, 0.05)))
            for name, value in vars(params).items()
        }
    )


def make_subject(other: OtherSet, body: BodyModel) -> None:
    """All files of the subject."""
    source, target = other.source / SUBJECT, other.path / SUBJECT
    identity = Identity(
        torch.from_numpy(other.normal(100, size=0.6)),
        torch.from_numpy(other.normal(body.n_vertices, 3, size=1e-3)),
        torch.from_numpy(other.normal(55, 3, size=6e-3)),
    )
    source_size = image_size(source / "captured/images/0.png")
    for split, frames, listed in other.sizes.frames:
        folder = target / split
        for index, drawn_from in frames:
            params = moved_params(other, source / split / f"smplx_optimized/smplx_params/{drawn_from}.json")
            write_smplx_params(_made(folder / f"smplx_optimized/smplx_params/{index}.json"), params)
            if index not in listed:
                continue
            camera_file = source / split / "cam_params" / f"{drawn_from}.json"
            size = (other.sizes.height, other.sizes.width)
            camera = moved_camera(other, camera_file, source_size, size)
            _write_frame(other, folder, index, camera, body, params, identity)
        if split.startswith("generated"):
            (folder / "frame_idx_list.txt").write_text("".join(f"{index}\n" for index in listed))
    for name, value in zip(
        ("shape_param", "face_offset", "joint_offset"), vars(identity).values(), strict=True
    ):
        other.write_json(f"{SUBJECT}/captured/smplx_optimized/{name}.json", value.tolist())
    n = other.sizes.texture
    for split in ("captured", "generated_0"):
        folder = target / split / "smplx_optimized"
        for name in ("smplx_texture_inpaint", "smplx_seg_inpaint"):
            write_image(folder / f"{name}.png", _noise(other, n, n))
        is_seen = torch.from_numpy(other.uniform(1, n, n)) > 0.4
        write_image(folder / "smplx_texture_mask.png", is_seen.float())


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _noise(other: OtherSet, height: int, width: int) -> Tensor:
    return torch.from_numpy(other.uniform(3, height, width))


def _write_frame(
    other: OtherSet,
    folder: Path,
    index: int,
    camera: Camera,
    body: BodyModel,
    params: SmplxParams,
    identity: Identity,
) -> None:
    """Image and maps: noise inside a shifted silhouette."""
    height, width = camera.height, camera.width
    posed = body.vertices(params, identity).vertices  # camera space
    depth = interpolate_mesh(rasterize_mesh(posed, body.faces, camera), posed[:, 2:])[0]
    mask = torch.roll(depth > 0, SHIFT, (0, 1))
    depth = torch.roll(depth, SHIFT, (0, 1)) + 0.1 * torch.from_numpy(other.uniform(height, width)) * mask
    normal = torch.nn.functional.normalize(torch.from_numpy(other.normal(height, width, 3)), dim=2)
    write_camera(_made(folder / f"cam_params/{index}.json"), camera)
    write_image(_made(folder / f"images/{index}.png"), _noise(other, height, width))
    write_image(_made(folder / f"masks/{index}.png"), mask[None].float())
    write_image(_made(folder / f"segs/{index}.png"), _noise(other, height, width))
    is_valid = [(mask & (torch.from_numpy(other.uniform(height, width)) > HOLES)).numpy() for _ in range(3)]
    np.save(_made(folder / f"depths/{index}.npy"), depth.numpy())
    np.save(folder / f"depths/{index}_mask.npy", is_valid[0])
    np.save(_made(folder / f"normals/{index}.npy"), normal.numpy())
    np.save(folder / f"normals/{index}_mask.npy", is_valid[1])
    np.save(folder / f"segs/{index}.npy", is_valid[2])
    if folder.name == "captured":
        write_image(_made(folder / f"image_intrinsics/{index}_albedo.png"), _noise(other, height, width))
        n = other.sizes.patch
        write_image(_made(folder / f"face_patches/images/{index}.png"), _noise(other, n, n))
        face = replace(camera, R=torch.eye(3), t=torch.zeros(3)).project(posed[body.parts_low.face]).numpy()
        box = Rectangle.around(face).extended(1.2, aspect_ratio=1.03)
        _made(folder / f"face_patches/bbox/{index}.json").write_text(json.dumps(list(box)))


def make_motion(other: OtherSet) -> None:
    """10_motion."""
    source, target = other.source / "10_motion", other.path / "10_motion"
    source_size = image_size(source / "images/0.png")
    size = (other.sizes.motion_height, other.sizes.motion_width)
    for index, drawn_from in other.sizes.motion_frames:
        camera = moved_camera(other, source / f"cam_params/{drawn_from}.json", source_size, size)
        write_camera(_made(target / f"cam_params/{index}.json"), camera)
        params = moved_params(other, source / f"smplx/params/{drawn_from}.json")
        write_smplx_params(_made(target / f"smplx/params/{index}.json"), params)
        for kind in ("images", "images_bkg"):
            write_image(_made(target / kind / f"{index}.png"), _noise(other, *size))


def make_evaluated(other: OtherSet) -> None:
    """11_evaluator: crops of random frames; SSIM by this project's evaluation, PSNR by a formula of its own."""
    name = "other_toy"
    test = other.path / f"11_evaluator/subjects/{name}/test"
    result = other.path / f"11_evaluator/result/{name}_fit_pose_to_test"
    result.mkdir(parents=True)
    other.write_json(f"{test.relative_to(other.path)}/images/img_shape_orig.json", other.sizes.full_frame)
    for index, box in other.sizes.evaluated:
        _, _, width, height = box
        truth = _noise(other, height, width)
        write_image(_made(test / f"images/{index}.png"), truth)
        (test / f"images/{index}_bbox_orig.json").write_text(json.dumps(box))
        mask = torch.zeros(1, height, width)
        mask[:, height // 8 : -height // 6, width // 5 : -width // 7] = 1
        write_image(_made(test / f"masks/{index}.png"), mask)
        write_image(result / f"test_{index}_refined.png", truth + 0.1 * (_noise(other, height, width) - 0.5))
    evaluation = evaluate(test.parent, result, None, "none", torch.device("cpu"))
    scores = {score.frame: score for score in evaluation.official.scores}
    order = [index for index, _ in other.sizes.evaluated]
    per_frame = {str(i): {"psnr": _psnr(other, test, result, i), "ssim": scores[i].ssim} for i in order}
    listed = {
        "frame_order": order,
        **{metric: [per_frame[str(i)][metric] for i in order] for metric in ("psnr", "ssim")},
        **{f"mean_{m}": float(np.mean([v[m] for v in per_frame.values()])) for m in ("psnr", "ssim")},
    }
    other.write_json(
        "11_evaluator/expected.json",
        {
            "eval_neuman": listed,
            "eval_xhumans": listed,
            "per_frame": per_frame,
            "full_frame_shape_hw": other.sizes.full_frame,
            "bbox_xywh": {str(index): box for index, box in other.sizes.evaluated},
        },
    )


def _psnr(other: OtherSet, test: Path, result: Path, index: int) -> float:
    """From the squared differences inside the mask, over all pixels of the full frame."""
    truth, mask = read_rgb(test / f"images/{index}.png"), read_mask(test / f"masks/{index}.png")
    render = read_rgb(result / f"test_{index}_refined.png")
    height, width = other.sizes.full_frame
    error = ((render - truth) * mask).double().square().sum() / (3 * height * width)
    return float(-10 * torch.log10(error))


def copy_unchanged(other: OtherSet) -> None:
    """What has no size: names of joints and keypoints."""
    shutil.copyfile(other.source / "03_names.json", other.path / "03_names.json")
