"""The demo subject is complete, the same for the same seed, and agrees with the truth written beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from common.body_model.body import BodyModel
from common.body_model.files import load_body_data
from common.camera import Camera
from common.demo.subject import DEMO_BODY, make_demo_subject
from common.demo.subject_cloth import Cloth, Cut
from common.demo.subject_poses import (
    MOTIONS,
    add_fit_noise,
    angles_to_params,
    params_to_rotvec,
    script_motion,
)
from common.demo.subject_settings import SIZES, FitNoise
from common.demo.subject_surface import find_landmarks, vertex_surface
from common.demo.subject_wardrobe import PART_COLORS, PART_INDEX
from common.errors import UserError
from common.io.image import read_mask, read_rgb
from common.io.json import read_json, read_numbers
from common.io.parameters import read_camera, read_smplx_params
from common.joints import EYES, FINGER_JOINTS, HEAD, JAW, N_BODY_POSE, joint_index
from common.mesh import vertex_normals
from common.motion import load_motion
from common.pose import SmplxPose
from common.rasterizer.mesh import interpolate_mesh, rasterize_mesh
from data.dataset import TEST, TRAIN_SPLITS, Subject

ROOT = Path(__file__).resolve().parents[2]
SPLITS = (*TRAIN_SPLITS, TEST)
TINY = SIZES["tiny"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("subjects") / "demo"
    make_demo_subject(folder, "tiny", seed=3)
    return folder


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel(load_body_data(DEMO_BODY, "neutral"), TINY.n_subdivisions)


def _all_frames(root: Path) -> Iterator[tuple[str, int]]:
    subject = Subject(root)
    for split in SPLITS:
        for index in subject.frames(split):
            yield split, index


def _true_mesh(root: Path, body: BodyModel, split: str, index: int) -> Tensor:
    """The dressed mesh in camera space from the files in `truth` alone, by plain skinning from the zero pose."""
    truth, identity = root / "truth", Subject(root).identity
    pose = SmplxPose.from_params(read_smplx_params(truth / "smplx_params" / split / f"{index}.json"))
    offset = np.load(truth / "vertices" / "static_offset.npy") + np.load(
        truth / "cloth" / split / f"{index}.npy"
    )
    neutral = body.subdivider.interpolate(body.neutral_vertices(identity, jaw_open=False))
    neutral = neutral + torch.from_numpy(offset).float() + body.expr_dirs_high @ pose.expr
    joints = body.zero_pose_joints(identity).double()
    neutral_rotation = SmplxPose.from_params(body.neutral_pose_params(jaw_open=False)).rotation.double()
    to_pose = _transforms(pose.rotation.double(), joints, body.parents)
    from_neutral = torch.linalg.inv(_transforms(neutral_rotation, joints, body.parents))
    homogeneous = torch.cat([neutral.double(), torch.ones(len(neutral), 1, dtype=torch.float64)], 1)
    posed = torch.zeros(len(neutral), 3, dtype=torch.float64)
    for joint, transform in enumerate(to_pose @ from_neutral):
        weight = body.skinning_weights_high[:, joint, None].double()
        posed += weight * (homogeneous @ transform[:3].T)
    return (posed + pose.trans.double()).float()


def _transforms(rotation: Tensor, joints: Tensor, parents: Tensor) -> Tensor:
    """Joint transforms (55, 4, 4) from the zero pose, joint by joint."""
    transforms: list[Tensor] = []
    for joint, parent in enumerate(parents.tolist()):
        local = torch.eye(4, dtype=torch.float64)
        local[:3, :3] = rotation[joint]
        local[:3, 3] = joints[joint] - rotation[joint] @ joints[joint]
        transforms.append(local if parent < 0 else transforms[parent] @ local)
    return torch.stack(transforms)


def _camera(root: Path, split: str, index: int) -> Camera:
    return read_camera(root / split / "cam_params" / f"{index}.json", TINY.height, TINY.width)


def test_subject_passes_the_datasets_own_checks_and_loads(root: Path, body: BodyModel) -> None:
    subject = Subject(root)
    subject.check(SPLITS, n_vertices=body.n_vertices)
    counts = {split: len(subject.frames(split)) for split in SPLITS}
    assert counts == {"captured": 1, "generated_0": 2, "generated_1": 2, "test": 2}
    for split, index in _all_frames(root):
        frame = subject.load(split, index)
        assert frame.image.shape == (3, TINY.height, TINY.width)
        assert (frame.depth[frame.mask > 0] > 0).all()
        assert torch.equal(frame.depth_mask, frame.mask)
        assert 0.03 < float(frame.mask.mean()) < 0.6
    textures = subject.textures()
    assert textures.rgb.shape == (3, TINY.texture_size, TINY.texture_size)


def test_motion_folder_loads_with_background(root: Path) -> None:
    motion = load_motion(root / "motion", with_background=True)
    assert len(motion.frames) == TINY.n_motion
    assert (motion.height, motion.width) == (TINY.height, TINY.width)


def test_same_seed_gives_the_same_files_and_another_seed_another_person(root: Path, tmp_path: Path) -> None:
    again, other = tmp_path / "again", tmp_path / "other"
    make_demo_subject(again, "tiny", seed=3)
    make_demo_subject(other, "tiny", seed=4)
    files = sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert [str(f) for f in files if (root / f).read_bytes() != (again / f).read_bytes()] == []
    for file in (
        "captured/images/0.png",
        "captured/smplx_optimized/shape_param.json",
        "truth/albedo_texture.png",
    ):
        assert (root / file).read_bytes() != (other / file).read_bytes()


def test_truth_files_reproduce_masks_depths_and_normals(root: Path, body: BodyModel) -> None:
    for split, index in _all_frames(root):
        if split.startswith("generated"):
            continue  # drawn with another face
        vertices, folder = _true_mesh(root, body, split, index), root / split
        fragments = rasterize_mesh(vertices, body.faces_high, _camera(root, split, index))
        is_hit = fragments.face_index >= 0
        mask = read_mask(folder / "masks" / f"{index}.png")[0] > 0
        both = (is_hit & mask).sum()
        assert both / (is_hit | mask).sum() > 0.93  # a border of half a pixel around a small person
        inside = (is_hit & mask).numpy()

        depth = np.load(folder / "depths" / f"{index}.npy")[inside]
        true_depth = fragments.depth.numpy()[inside]
        slope, shift = np.polyfit(true_depth, depth, 1)
        residual = np.abs(depth - slope * true_depth - shift)
        assert slope > 0  # larger is farther
        assert np.median(residual) < 0.02 * np.ptp(depth)

        normal = (
            interpolate_mesh(fragments, vertex_normals(vertices, body.faces_high)).permute(1, 2, 0).numpy()
        )
        stored = np.load(folder / "normals" / f"{index}.npy").astype(np.float32)
        cosine = (stored * normal * np.array([1, -1, -1])).sum(-1)[inside]
        np.testing.assert_allclose(np.linalg.norm(stored[inside], axis=-1), 1, atol=2e-3)
        assert np.median(cosine) > 0.97
        assert stored[inside][:, 2].mean() > 0.4  # towards the camera


def test_exact_naked_body_lies_inside_the_mask_and_fills_most_of_it(root: Path, body: BodyModel) -> None:
    identity = Subject(root).identity
    for split, index in _all_frames(root):
        exact = read_smplx_params(root / "truth" / "smplx_params" / split / f"{index}.json")
        output = body.vertices(exact, identity)
        fragments = rasterize_mesh(output.vertices, body.faces, _camera(root, split, index))
        is_body = fragments.face_index >= 0
        mask = read_mask(root / split / "masks" / f"{index}.png")[0] > 0
        assert (is_body & mask).sum() / is_body.sum() > 0.93
        assert 0.55 < is_body.sum() / mask.sum() < 1.0  # the rest is loose cloth


def test_written_parameters_have_the_error_of_a_fit() -> None:
    frames = script_motion("generated_0", 60, np.random.default_rng(0))
    noisy = add_fit_noise(frames, FitNoise(), np.random.default_rng(1))
    exact = SmplxPose.from_params(frames[0]).rotation
    assert exact.shape == (55, 3, 3)
    angles, shifts = [], []
    for before, after in zip(frames, noisy, strict=True):
        turn = SmplxPose.from_params(after).rotation @ SmplxPose.from_params(before).rotation.transpose(1, 2)
        trace = turn.diagonal(dim1=1, dim2=2).sum(1)
        angles.append(torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1)))[: N_BODY_POSE + 1])
        shifts.append(after.trans - before.trans)
    assert 1.3 < float(torch.stack(angles).square().mean().sqrt()) < 1.7
    assert 0.006 < float(torch.stack(shifts).square().sum(1).mean().sqrt()) < 0.014


def test_written_parameters_are_near_but_not_the_exact_ones(root: Path) -> None:
    for split, index in _all_frames(root):
        exact = read_smplx_params(root / "truth" / "smplx_params" / split / f"{index}.json")
        fitted = read_smplx_params(root / split / "smplx_optimized" / "smplx_params" / f"{index}.json")
        difference = np.abs(params_to_rotvec(exact) - params_to_rotvec(fitted))
        assert 1e-3 < difference[1:22].max() < 0.15


def test_cloth_moves_centimetres_with_the_pose_and_leaves_head_and_hands_alone(
    root: Path, body: BodyModel
) -> None:
    offsets = [np.load(path).astype(np.float32) for path in sorted((root / "truth" / "cloth").rglob("*.npy"))]
    spread = np.linalg.norm(np.ptp(np.stack(offsets), axis=0), axis=1)
    assert spread.max() > 0.04
    assert (spread > 0.02).mean() > 0.05
    weights = body.skinning_weights_high.numpy()
    fixed = weights[:, [HEAD, JAW, *EYES, *FINGER_JOINTS]].sum(1) > 0.9
    assert spread[fixed].max() < 1e-3
    parts = body.parts_high
    assert spread[(parts.hand | parts.expression | parts.eye).numpy()].max() < 2e-3


def test_cloth_follows_only_joints_that_the_avatar_can_see(body: BodyModel) -> None:
    landmarks = find_landmarks(body)
    cloth = Cloth(vertex_surface(body, landmarks, {}), landmarks, Cut())
    rng = np.random.default_rng(5)
    rotation = SmplxPose.from_params(script_motion("test", 3, rng)[1]).rotation.double().numpy()
    before = cloth.pose_offset(rotation)
    turn = Rotation.from_rotvec([0.6, 0.3, 0.5]).as_matrix()
    dominant = body.skinning_weights_high.argmax(1)
    seen = []
    for joint in range(55):
        turned = rotation.copy()
        turned[joint] = turned[joint] @ turn
        change = np.abs(cloth.pose_offset(turned) - before).max(1)
        is_seen = (body.kinematic_reach[dominant, joint] > 0).numpy()
        assert change[~is_seen].max(initial=0) < 1e-3, joint
        if change.max() > 1e-2:
            seen.append(joint)
    assert {joint_index(f"left_{name}") for name in ("hip", "knee", "shoulder", "elbow")} <= set(seen)
    assert 0 not in seen  # never the turn of the whole body


def test_cloth_is_a_smooth_function_of_the_pose(body: BodyModel) -> None:
    landmarks = find_landmarks(body)
    cloth = Cloth(vertex_surface(body, landmarks, {}), landmarks, Cut())

    def offset(phase: float) -> np.ndarray:
        pose = SmplxPose.from_params(angles_to_params(MOTIONS["motion"](phase)))
        return cloth.pose_offset(pose.rotation.double().numpy())

    steps = [np.abs(offset(0.3 + h) - offset(0.3)).max() for h in (0.02, 0.01, 0.005)]
    assert steps[1] < 0.75 * steps[0] and steps[2] < 0.75 * steps[1]


def test_cloth_masks_mark_part_of_the_person(root: Path) -> None:
    for index in range(TINY.n_test):
        loose = read_mask(root / "truth" / "cloth_masks" / "test" / f"{index}.png")
        person = read_mask(root / "test" / "masks" / f"{index}.png")
        assert (loose <= person).all()
        assert 0.1 < float(loose.sum() / person.sum()) < 0.7


def test_segmentation_uses_only_the_parts_colours(root: Path) -> None:
    allowed = {tuple(color) for color in PART_COLORS.tolist()}
    for split, index in _all_frames(root):
        valid = np.load(root / split / "segs" / f"{index}.npy")
        colors = (
            (read_rgb(root / split / "segs" / f"{index}.png") * 255).round().byte().permute(1, 2, 0).numpy()
        )
        assert {tuple(color) for color in np.unique(colors.reshape(-1, 3), axis=0).tolist()} <= allowed
        assert (colors[valid].max(1) > 0).all() and (colors[~valid] == 0).all()


def test_photo_textures_show_the_true_paint_where_the_photo_saw_it(root: Path) -> None:
    folder = root / "captured" / "smplx_optimized"
    seen = read_mask(folder / "smplx_texture_mask.png")[0] > 0
    assert 0.1 < float(seen.float().mean()) < 0.6
    texture = read_rgb(folder / "smplx_texture_inpaint.png")
    truth = read_rgb(root / "truth" / "albedo_texture.png")
    truth = torch.nn.functional.interpolate(truth[None], size=texture.shape[1:], mode="area")[0]
    error = (texture - truth).abs().mean(0)
    assert float(error[seen].median()) < 0.08  # light, a fit's error, cloth off the body, 64 x 96 pixels


def test_face_patch_is_the_photo_at_its_box(root: Path) -> None:
    folder = root / "captured"
    x, y, w, h = read_numbers(folder / "face_patches" / "bbox" / "0.json", (4,)).tolist()
    assert w == h and 0 < x < TINY.width - w and 0 < y < TINY.height - h
    patch = read_rgb(folder / "face_patches" / "images" / "0.png")
    assert patch.shape == (3, 256, 256)
    photo = read_rgb(folder / "images" / "0.png")
    centres = torch.meshgrid(torch.arange(256) + 0.5, torch.arange(256) + 0.5, indexing="ij")
    grid = torch.stack(
        [(centres[1] * w / 256 + x) / TINY.width, (centres[0] * h / 256 + y) / TINY.height], -1
    )
    enlarged = torch.nn.functional.grid_sample(photo[None], grid[None] * 2 - 1, align_corners=False)[0]
    blurred = torch.nn.functional.avg_pool2d(patch[None], 33, stride=8, padding=16, count_include_pad=False)[
        0
    ]
    difference = (blurred - enlarged[:, ::8, ::8]).abs()[:, 8:-8, 8:-8]
    assert float(difference.mean()) < 0.05


def test_generated_video_drifts_in_colour_and_the_test_frames_do_not(root: Path) -> None:
    def background(split: str, index: int) -> Tensor:
        return read_rgb(root / split / "images" / f"{index}.png")[:, :6].mean((1, 2))

    photo = background("captured", 0)
    for split in ("generated_0", "generated_1"):
        early, late = (float((background(split, i) - photo).abs().max()) for i in (0, 1))
        assert late > 0.02 and late > early - 0.03  # flicker comes on top
    assert torch.allclose(background("test", 0), background("test", 1), atol=1e-3)


def test_test_frames_lie_inside_the_original_video(root: Path) -> None:
    folder = root / "test" / "images"
    height, width = read_json(folder / "img_shape_orig.json")
    for index in range(TINY.n_test):
        x, y, w, h = read_json(folder / f"{index}_bbox_orig.json")
        assert (w, h) == (TINY.width, TINY.height)
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height


def test_eyes_hair_and_both_hands_are_labelled_parts(root: Path) -> None:
    part = np.load(root / "truth" / "vertices" / "part.npy")
    assert set(np.unique(part)) == set(PART_INDEX.values()) - {PART_INDEX["none"]}


def test_existing_folder_is_kept_unless_overwrite_is_given(tmp_path: Path) -> None:
    output = tmp_path / "subject"
    output.mkdir()
    (output / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="not empty"):
        make_demo_subject(output, "tiny", seed=0)
    assert (output / "mine.txt").read_text() == "keep"
    make_demo_subject(output, "tiny", seed=0, overwrite=True)
    assert not (output / "mine.txt").exists() and (output / "captured").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["subject"]


def test_bad_arguments_are_user_errors_and_leave_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="huge"):
        make_demo_subject(tmp_path / "a", "huge", seed=0)
    with pytest.raises(UserError, match="negative"):
        make_demo_subject(tmp_path / "a", "tiny", seed=-1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        make_demo_subject(tmp_path / "file", "tiny", seed=0)
    with pytest.raises(UserError, match="cannot write"):
        make_demo_subject(tmp_path / "file" / "inside", "tiny", seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_failure_halfway_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from common.demo import subject as module

    def fail(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.write, "write_crop", fail)
    with pytest.raises(KeyboardInterrupt):
        make_demo_subject(tmp_path / "subject", "tiny", seed=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cwd", [ROOT, ROOT / "tools"])
def test_command_ends_with_one_line_on_an_existing_folder(tmp_path: Path, cwd: Path) -> None:
    (tmp_path / "x").write_text("")
    command = [
        sys.executable,
        str(ROOT / "tools" / "make_demo_subject.py"),
        "--output",
        str(tmp_path),
        "--size",
        "tiny",
    ]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "--overwrite" in done.stderr
