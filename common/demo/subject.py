"""Making the demo subject: a person whose truth is known, in the subject layout of SPEC 3 (SPEC 16)."""

from __future__ import annotations

import os
import shutil
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from common.body_model.body import BodyModel
from common.body_model.files import load_body_data
from common.camera import Camera
from common.demo import subject_writer as write
from common.demo.subject_cloth import Cut
from common.demo.subject_flaws import draw_drift, spoil
from common.demo.subject_geometry import TrueSubject, face_variation, random_identity
from common.demo.subject_paint import paint, with_other_face
from common.demo.subject_poses import add_fit_noise, script_motion
from common.demo.subject_render import Paint, Picture, render
from common.demo.subject_scene import Shot, backdrop, place_shots
from common.demo.subject_settings import FitNoise, SubjectSize, VideoFlaws, subject_size
from common.demo.subject_surface import find_landmarks, vertex_surface
from common.demo.subject_wardrobe import PART_COLORS, PART_INDEX, PARTS, random_wardrobe
from common.errors import UserError
from common.pose import SmplxParams, SmplxPose
from common.rectangle import Rectangle
from common.unwrapping import Unwrapping, View
from common.uv_map import TexturedMesh, UvMap

DEMO_BODY = Path(__file__).resolve().parents[2] / "data" / "demo_body"
FACE_BOX_MARGIN = 1.25
OTHER_FACE_M = 0.003  # how much the face's shape is off in generated video
MOTION_SUPERSAMPLING = 2
MAX_UNWRAPPED = 12  # frames of generated_0 that its texture is made from


def make_demo_subject(output: Path, size: str, seed: int, overwrite: bool = False) -> None:
    """Write the demo subject of a seed into the folder `output`: all splits, `motion` and `truth`.

    The same size and seed give the same files. It is built in a folder beside `output`, which gets its name at
    the end. UserError if `output` holds something and `overwrite` is not set.
    """
    if seed < 0:
        raise UserError(f"--seed {seed} is negative; give 0 or more")
    spec = subject_size(size)
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; give the folder to be made")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise UserError(f"{output} is not empty; give --overwrite to replace it, or another --output")
    building = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        building.mkdir(parents=True)
        _SubjectMaker(building, spec, size, seed).run()
        _replace(output, building)
    except OSError as error:
        raise UserError(
            f"cannot write {output}: {error.strerror or error}; choose another --output"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _replace(output: Path, building: Path) -> None:
    if output.exists():
        old = output.with_name(f".{output.name}.{os.getpid()}.old")
        output.rename(old)
        building.rename(output)
        shutil.rmtree(old)
    else:
        building.rename(output)


@dataclass(frozen=True)
class _Clip:
    """One split before it is rendered."""

    shots: list[Shot]
    fitted: list[SmplxParams]  # noisy parameters, as written beside the images
    background: np.ndarray


class _SubjectMaker:
    """One subject while it is being made."""

    def __init__(self, folder: Path, size: SubjectSize, size_name: str, seed: int) -> None:
        self.folder, self.size, self.size_name, self.seed = folder, size, size_name, seed
        data = load_body_data(DEMO_BODY, "neutral")
        self.body = BodyModel(data, size.n_subdivisions)
        self.mesh = TexturedMesh.of(self.body)
        landmarks = find_landmarks(self.body)
        regions = _read_regions(DEMO_BODY / "regions.npz", self.body.n_vertices)
        surface = vertex_surface(self.body, landmarks, regions)
        cut = Cut()
        identity = random_identity(self.body, surface, landmarks, self._random("identity"))
        self.subject = TrueSubject(self.body, identity, surface, landmarks, cut)
        wardrobe = random_wardrobe(self._random("wardrobe"))
        flaws = VideoFlaws()
        self.flaws = flaws
        self.vertex_albedo, self.vertex_part = paint(surface, landmarks, cut, wardrobe)
        uv_map = UvMap.of(self.mesh, size.true_texture_size)
        texels = surface.on_faces(uv_map.corners, uv_map.hits.barycentric)
        self.paint = _paint_texture(uv_map, paint(texels, landmarks, cut, wardrobe))
        other = random_wardrobe(self._random("other face"))
        changed = with_other_face(wardrobe, other, flaws.face_change)
        self.generated_paint = _paint_texture(uv_map, paint(texels, landmarks, cut, changed, flaws.garble))
        variation = face_variation(
            surface, landmarks, self._random("other face shape"), OTHER_FACE_M * flaws.face_change
        )
        self.generated_face = torch.from_numpy(variation)
        self.unwrap_map = UvMap.of(self.mesh, size.texture_size)
        self.background = backdrop(size, self._random("room"))

    def _random(self, name: str) -> np.random.Generator:
        """An independent stream for each purpose, so that changing one leaves the others."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def run(self) -> None:
        """Render and write everything."""
        size = self.size
        n_frames = 1 + 2 * size.n_generated + size.n_test + size.n_motion
        with tqdm(total=n_frames, desc="demo subject", unit="frame") as self.progress:
            self._make_photo()
            for split in ("generated_0", "generated_1"):
                self._make_video(split)
            self._make_test()
            self._make_motion()
        self._write_truth()

    def _clip(self, split: str, n_frames: int, extra: Tensor | None = None, room: str = "room") -> _Clip:
        frames = script_motion(split, n_frames, self._random(f"{split} motion"))
        shots = place_shots(self.subject, frames, self.size, self._random(f"{split} place"), extra)
        exact = [shot.params for shot in shots]
        fitted = add_fit_noise(exact, FitNoise(), self._random(f"{split} fit"))
        return _Clip(shots, fitted, backdrop(self.size, self._random(room)))

    def _draw(
        self, shot: Shot, paint: Paint, background: np.ndarray, supersampling: int | None = None
    ) -> Picture:
        self.progress.update()
        looseness = self.subject.cloth.looseness
        factor = supersampling or self.size.supersampling
        return render(shot.vertices, self.mesh, paint, looseness, shot.camera, background, factor)

    def _write_frame(self, split: str, index: int, clip: _Clip, picture: Picture, image: np.ndarray) -> None:
        shot = clip.shots[index]
        random = self._random(f"{split} depth {index}")
        depth_scale = float(random.uniform(0.5, 2.0)), float(random.uniform(0.5, 1.5))
        fitted = clip.fitted[index]
        write.write_frame(self.folder / split, index, image, picture, shot.camera, fitted, depth_scale)
        write.write_true_frame(self.folder / "truth", split, index, shot.params, shot.cloth)

    def _view(self, shot: Shot, fitted: SmplxParams, picture: Picture, image: np.ndarray) -> View:
        """What unwrapping sees: the picture and the naked body that was fitted to it, as a real pipeline has."""
        pose = SmplxPose.from_params(fitted)
        naked = self.subject.naked + self.body.expr_dirs_high @ pose.expr
        part_colors = PART_COLORS[picture.label].astype(np.float32) / 255
        is_hand = np.isin(picture.label, [PART_INDEX["left_hand"], PART_INDEX["right_hand"]])
        return View(self.subject.skin(pose, naked), shot.camera, image, part_colors, picture.mask, is_hand)

    def _unwrapping(self) -> Unwrapping:
        is_hand = self.body.parts_high.hand.numpy()
        return Unwrapping(self.mesh, self.unwrap_map, self.subject.surface.position, is_hand)

    def _make_photo(self) -> None:
        clip = self._clip("captured", 1)
        shot, folder = clip.shots[0], self.folder / "captured"
        picture = self._draw(shot, self.paint, clip.background)
        self._write_frame("captured", 0, clip, picture, picture.image)
        write.write_identity(folder, self.subject.identity)
        bbox = self._face_box(shot)
        patch_size = self.size.patch_size
        crop = shot.camera.crop(torch.tensor(bbox), patch_size, patch_size)
        wall = np.broadcast_to(picture.image[0, 0], (patch_size, patch_size, 3))
        patch = render(shot.vertices, self.mesh, self.paint, self.subject.cloth.looseness, crop, wall, 3)
        write.write_photo_extras(folder, 0, picture, patch.image, bbox)
        unwrapping = self._unwrapping()
        unwrapping.add(self._view(shot, clip.fitted[0], picture, picture.image))
        write.write_textures(folder, unwrapping.finish())

    def _face_box(self, shot: Shot) -> Rectangle:
        """A square box around the face, with a margin, to thousandths of a pixel."""
        parts = self.body.parts_high
        pixels = shot.camera.project(shot.vertices[parts.expression | parts.eye]).numpy()
        square = Rectangle.around(pixels).extended(FACE_BOX_MARGIN, aspect_ratio=1.0)
        return Rectangle(*(round(value, 3) for value in square))

    def _make_video(self, split: str) -> None:
        n_frames, folder = self.size.n_generated, self.folder / split
        clip = self._clip(split, n_frames, self.generated_face)
        drift = draw_drift(n_frames, self.flaws, self._random(f"{split} drift"))
        unwrapping = self._unwrapping()
        unwrapped = set(
            np.linspace(0, n_frames - 1, min(n_frames, MAX_UNWRAPPED)).round().astype(int).tolist()
        )
        for i, shot in enumerate(clip.shots):
            picture = self._draw(shot, self.generated_paint, clip.background)
            image = spoil(picture.image, i, drift, self.flaws)
            self._write_frame(split, i, clip, picture, image)
            if split == "generated_0" and i in unwrapped:
                unwrapping.add(self._view(shot, clip.fitted[i], picture, image))
        write.write_frame_list(folder, n_frames)
        if split == "generated_0":
            write.write_textures(folder, unwrapping.finish())

    def _make_test(self) -> None:
        size = self.size
        clip = self._clip("test", size.n_test, room="test room")
        shape = round(1.1 * size.height), round(1.6 * size.width)
        for i, shot in enumerate(clip.shots):
            picture = self._draw(shot, self.paint, clip.background)
            self._write_frame("test", i, clip, picture, picture.image)
            corner = round(0.35 * size.width), round(0.07 * size.height)
            write.write_crop(self.folder / "test", i, (*corner, size.width, size.height), shape)
            write.write_cloth_mask(self.folder / "truth", "test", i, picture)

    def _make_motion(self) -> None:
        clip = self._clip("motion", self.size.n_motion, room="stage")
        world = _tilted_camera(clip.shots[0].camera)
        for i, shot in enumerate(clip.shots):
            picture = self._draw(shot, self.paint, clip.background, MOTION_SUPERSAMPLING)
            folder = self.folder / "motion"
            write.write_motion_frame(folder, i, picture.image, clip.background, world, shot.params)

    def _write_truth(self) -> None:
        per_vertex = {
            "static_offset": self.subject.static_offset.numpy(),
            "albedo": self.vertex_albedo,
            "part": self.vertex_part,
            "looseness": self.subject.cloth.looseness,
        }
        about = {
            "size": self.size_name,
            "seed": self.seed,
            "n_subdivisions": self.size.n_subdivisions,
            "parts": list(PARTS),
            "cut": asdict(self.subject.cloth.cut),
            "files": {
                "smplx_params/<split>/<i>.json": "exact parameters; the subject's own have the error of a fit",
                "cloth/<split>/<i>.npy": "pose-driven cloth offset (N, 3), neutral pose, metres",
                "cloth_masks/test/<i>.png": "where loose cloth is seen",
                "vertices/": "static_offset.npy (N, 3) neutral pose, albedo.npy (N, 3), part.npy, looseness.npy (N,)",
                "albedo_texture.png, part_texture.png": "the true paint in UV space",
            },
        }
        write.write_true_appearance(
            self.folder / "truth", self.paint.albedo, self.paint.label, per_vertex, about
        )


def _paint_texture(uv_map: UvMap, painted: tuple[np.ndarray, np.ndarray]) -> Paint:
    albedo, label = painted
    return Paint(uv_map.image(albedo), uv_map.image(label))


def _read_regions(file: Path, n_vertices: int) -> dict[str, np.ndarray]:
    """Region masks (V,) of the demo body, 0 or 1."""
    if not file.is_file():
        raise UserError(f"missing file: {file}; get it from the repository, it comes with the demo body")
    with np.load(file, allow_pickle=False) as stored:
        return {
            name: np.isin(np.arange(n_vertices), stored[name]).astype(np.float32) for name in stored.files
        }


def _tilted_camera(camera: Camera) -> Camera:
    """The same view from a place and direction of its own in the world; parameters stay in camera space."""
    turn = torch.tensor([[0.96, 0.0, 0.28], [0.0, 1.0, 0.0], [-0.28, 0.0, 0.96]])
    return Camera(
        turn, torch.tensor([0.3, -0.2, 0.5]), camera.focal, camera.princpt, camera.height, camera.width
    )
