"""What a subject's folder loads as, and that whatever is wrong in it is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.io.array import write_array
from common.io.image import write_image
from common.io.json import write_json
from data.dataset import GENERATED, Subject, fitting_list, rendering_list, training_list
from tests.data.tiny_subject import FRAMES, HEIGHT, PATCH, UNLISTED, WIDTH, write_subject

ALL_SPLITS = tuple(FRAMES)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    return write_subject(tmp_path_factory.mktemp("subject") / "S")


@pytest.fixture
def subject(pristine, tmp_path) -> Subject:
    """A copy that a test may damage."""
    return Subject(Path(shutil.copytree(pristine, tmp_path / "S")), PATCH)


def test_intact_subject_has_no_problems(subject):
    subject.check(ALL_SPLITS, n_vertices=12)


def test_frames_are_in_numeric_order_whatever_the_list_order(subject):
    assert {split: subject.frames(split) for split in FRAMES} == FRAMES


def test_a_frame_that_is_read_ahead_is_handed_out_once(subject):
    expected = subject.load("captured", 0)
    subject.read_ahead("captured", 0)
    ahead = subject.load("captured", 0)
    torch.testing.assert_close(ahead.image, expected.image, atol=0, rtol=0)
    assert subject.load("captured", 0) is not ahead
    (subject.root / "captured" / "images" / "0.png").unlink()
    subject.read_ahead("captured", 0)
    with pytest.raises(UserError, match=r"0\.png"):
        subject.load("captured", 0)


def test_captured_frames_are_seen_as_often_as_all_generated_ones(subject):
    keys = training_list(subject)
    n_generated = sum(len(FRAMES[split]) for split in GENERATED)
    assert [key[0] for key in keys].count("captured") == n_generated == len(keys) / 2
    assert len(set(keys)) == n_generated + 1
    assert rendering_list(subject) == [("captured", 0), *keys[n_generated:]]
    assert fitting_list(subject, 2) == [("test", 3), ("test", 11)] * 2


def test_parameters_of_frames_that_are_not_listed_are_loaded_too(subject):
    split, index = UNLISTED
    assert index in subject.smplx_params()[split]
    assert index not in subject.frames(split)


def test_invalid_pixels_are_exactly_zero_and_valid_normals_are_mapped(subject):
    frame = subject.load("generated_0", 2)
    folder = subject.root / "generated_0"
    normals, valid = np.load(folder / "normals/2.npy"), np.load(folder / "normals/2_mask.npy")
    expected = np.where(valid[..., None], (normals + 1) / 2, 0).transpose(2, 0, 1)
    np.testing.assert_allclose(frame.normal.numpy(), expected, atol=1e-6)
    assert (frame.depth[frame.depth_mask == 0] == 0).all()
    assert (frame.depth[frame.depth_mask == 1] > 0).all()
    assert (frame.seg[:, torch.tensor(~np.load(folder / "segs/2.npy"))] == 0).all()
    assert frame.image.shape == (3, HEIGHT, WIDTH)
    assert set(frame.mask.unique().tolist()) == {0.0, 1.0}


def test_only_the_photo_has_albedo_and_face_patch(subject):
    photo, other = subject.load("captured", 0), subject.load("test", 3)
    assert photo.is_captured and not other.is_captured
    assert photo.albedo.std() > 0 and photo.face_patch.std() > 0
    assert (other.albedo == 1).all() and (other.face_patch == 1).all()
    assert other.face_bbox.tolist() == [0, 0, 1, 1]
    assert other.name == "test_3"


def test_face_camera_sees_the_box_as_the_whole_patch(subject):
    frame = subject.load("captured", 0)
    x, y, w, h = frame.face_bbox.tolist()
    points = torch.tensor([[0.1, -0.2, 2.0], [-0.05, 0.3, 1.5]])
    in_image, in_patch = frame.camera.project(points), frame.face_camera.project(points)
    expected = (in_image - torch.tensor([x, y])) / torch.tensor([w, h]) * PATCH
    torch.testing.assert_close(in_patch, expected)
    assert (frame.face_camera.height, frame.face_camera.width) == (PATCH, PATCH)


def test_colour_texture_is_the_photo_s_exactly_where_its_mask_is_set(subject):
    folder = subject.root / "captured/smplx_optimized"
    mask = np.zeros((6, 6, 3), dtype=np.uint8)
    mask[2:, :3] = 1  # any value over 0 counts
    write_image(folder / "smplx_texture_mask.png", mask)
    textures = subject.textures()
    differs = (textures.rgb != textures.rgb_aux).any(0)
    assert differs[2:, :3].all() and not differs[:2].any() and not differs[:, 3:].any()


def test_check_reads_no_more_than_it_must_and_tells_several_problems_in_one_line(subject):
    for index in (0, 2, 10):
        (subject.root / f"generated_0/depths/{index}.npy").unlink()
    (subject.root / "test/masks/3.png").unlink()
    with pytest.raises(UserError, match=r"depths/0\.npy.*and 1 more problem") as error:
        subject.check(ALL_SPLITS)
    assert "\n" not in str(error.value)
    assert len(subject.problems(ALL_SPLITS)) == 4


def _edit_json(name: str, edit: Callable[[dict], None]) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        content = json.loads((root / name).read_text())
        edit(content)
        (root / name).write_text(json.dumps(content))

    return damage


def _truncate(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:-20])


def _remove(name: str) -> Callable[[Path], None]:
    return lambda root: shutil.rmtree(root / name) if (root / name).is_dir() else (root / name).unlink()


def _write(name: str, text: str) -> Callable[[Path], None]:
    return lambda root: (root / name).write_text(text)


def _resize(name: str) -> Callable[[Path], None]:
    return lambda root: write_image(root / name, np.zeros((HEIGHT, WIDTH + 1, 3), dtype=np.uint8))


def _array(name: str, array: np.ndarray) -> Callable[[Path], None]:
    return lambda root: write_array(root / name, array)


PARAMS = "generated_0/smplx_optimized/smplx_params"
DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no subject": (lambda root: shutil.rmtree(root), r"missing folder: .*/S$"),
    "missing split": (_remove("generated_1"), r"missing split: .*generated_1"),
    "missing image": (_remove("captured/images/0.png"), r"missing file: .*captured/images/0\.png"),
    "missing image of one of several": (
        _remove("test/images/11.png"),
        r"missing file: .*test/images/11\.png",
    ),
    "truncated image": (_truncate("generated_0/images/2.png"), r"images/2\.png is truncated"),
    "empty image": (_write("generated_0/images/2.png", ""), r"images/2\.png is truncated or not an image"),
    "text as image": (_write("captured/masks/0.png", "hello"), r"masks/0\.png is truncated or not an image"),
    "wrong image size": (_resize("captured/masks/0.png"), r"masks/0\.png is 15 x 20 .* expected 14 x 20"),
    "wrong patch size": (_resize("captured/face_patches/images/0.png"), r"expected 8 x 8"),
    "missing albedo": (_remove("captured/image_intrinsics"), r"missing file: .*0_albedo\.png"),
    "missing patch": (_remove("captured/face_patches/images/0.png"), r"missing file: .*face_patches"),
    "face box outside": (_write("captured/face_patches/bbox/0.json", "[50, 0, 4, 4]"), "outside the 14 x 20"),
    "empty face box": (_write("captured/face_patches/bbox/0.json", "[1, 2, 0, 4]"), "is empty"),
    "short face box": (_write("captured/face_patches/bbox/0.json", "[1, 2, 4]"), "shape 3, expected 4"),
    "NaN parameter": (
        _edit_json(f"{PARAMS}/2.json", lambda c: c["trans"].__setitem__(0, float("nan"))),
        r"2\.json: trans has NaN",
    ),
    "infinite parameter of an unlisted frame": (
        _edit_json(f"{PARAMS}/7.json", lambda c: c["expr"].__setitem__(0, float("inf"))),
        r"7\.json: expr has NaN or infinite",
    ),
    "missing parameter": (_edit_json(f"{PARAMS}/2.json", lambda c: c.pop("jaw_pose")), r"lacks jaw_pose"),
    "parameter of wrong shape": (
        _edit_json(f"{PARAMS}/2.json", lambda c: c["body_pose"].pop()),
        r"body_pose has shape 20x3, expected 21x3",
    ),
    "transposed parameter": (
        _edit_json(f"{PARAMS}/2.json", lambda c: c.update(body_pose=np.zeros((3, 21)).tolist())),
        r"body_pose has shape 3x21, expected 21x3",
    ),
    "text as parameter": (
        _edit_json(f"{PARAMS}/2.json", lambda c: c.update(trans=["0", "0", "0"])),
        r"trans is not a list of numbers",
    ),
    "ragged parameter": (
        _edit_json(f"{PARAMS}/2.json", lambda c: c["lhand_pose"][3].pop()),
        r"lhand_pose is not a list of numbers",
    ),
    "list as parameter file": (_write(f"{PARAMS}/2.json", "[1, 2]"), r"2\.json holds a list"),
    "broken json": (_truncate(f"{PARAMS}/2.json"), r"2\.json is not valid json"),
    "missing parameters": (_remove(f"{PARAMS}/2.json"), r"missing file: .*smplx_params/2\.json"),
    "missing camera": (_remove("generated_1/cam_params/1.json"), r"missing file: .*cam_params/1\.json"),
    "camera without focal": (
        _edit_json("captured/cam_params/0.json", lambda c: c.pop("focal")),
        r"cam_params/0\.json lacks focal",
    ),
    "camera that is no rotation": (
        _edit_json("captured/cam_params/0.json", lambda c: c["R"][0].__setitem__(0, -1.0)),
        r"R is not a rotation",
    ),
    "camera with negative focal": (
        _edit_json("captured/cam_params/0.json", lambda c: c.update(focal=[-1, 2])),
        r"focal must be positive",
    ),
    "truncated depth": (_truncate("generated_0/depths/10.npy"), r"depths/10\.npy is truncated"),
    "depth of wrong size": (
        _array("generated_0/depths/10.npy", np.zeros((HEIGHT, WIDTH + 1))),
        r"depths/10\.npy has shape \(20, 15\), expected \(20, 14\)",
    ),
    "pickled depth": (
        lambda root: np.save(root / "generated_0/depths/10.npy", np.array([{}]), allow_pickle=True),
        r"depths/10\.npy is truncated or not a plain",
    ),
    "missing depth mask": (_remove("test/depths/3_mask.npy"), r"missing file: .*3_mask\.npy"),
    "missing frame list": (_remove("generated_0/frame_idx_list.txt"), r"missing file: .*frame_idx_list"),
    "empty frame list": (_write("generated_0/frame_idx_list.txt", "\n"), "lists no frames"),
    "frame list of words": (_write("generated_0/frame_idx_list.txt", "0\n../1\n"), "is not a frame index"),
    "frame list with a frame that is not there": (
        _write("generated_0/frame_idx_list.txt", "0\n4\n"),
        r"missing file: .*generated_0/images/4\.png",
    ),
    "frame listed twice": (_write("generated_0/frame_idx_list.txt", "0\n2\n0\n"), "lists a frame twice"),
    "no frames": (
        lambda root: [shutil.rmtree(root / "test" / name) for name in ("images", "masks", "cam_params")],
        r"no frames in .*test/images",
    ),
    "missing texture": (
        _remove("generated_0/smplx_optimized/smplx_seg_inpaint.png"),
        r"missing file: .*smplx_seg_inpaint\.png",
    ),
    "textures of two sizes": (
        _resize("captured/smplx_optimized/smplx_texture_inpaint.png"),
        r"is 6 x 6 .* expected 15 x 20",
    ),
    "identity of wrong length": (
        _write("captured/smplx_optimized/shape_param.json", "[0.0, 1.0]"),
        r"shape_param\.json has shape 2, expected 100",
    ),
    "identity of another body": (
        lambda root: write_json(root / "captured/smplx_optimized/face_offset.json", np.zeros((13, 3))),
        r"face_offset\.json is for a body with 13 vertices, the body model here has 12",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_before_training_and_named(subject, name):
    damage, message = DAMAGES[name]
    damage(subject.root)
    problems = subject.problems(ALL_SPLITS, n_vertices=12)
    assert len(problems) >= 1
    with pytest.raises(UserError, match=message):
        subject.check(ALL_SPLITS, n_vertices=12)


def test_nan_in_a_valid_pixel_is_an_error_and_in_an_invalid_one_is_not(subject):
    path = subject.root / "generated_0/depths/2.npy"
    depth, valid = np.load(path), np.load(subject.root / "generated_0/depths/2_mask.npy")
    depth[~valid] = np.nan
    write_array(path, depth)
    assert torch.isfinite(subject.load("generated_0", 2).depth).all()
    depth[tuple(np.argwhere(valid)[0])] = np.inf
    write_array(path, depth)
    with pytest.raises(UserError, match=r"depths/2\.npy has NaN or infinite"):
        subject.load("generated_0", 2)


def test_validity_of_0_and_255_is_refused(subject):
    path = subject.root / "generated_0/normals/2_mask.npy"
    write_array(path, np.load(path).astype(np.uint8) * 255)
    with pytest.raises(UserError, match=r"2_mask\.npy has values outside 0 and 1"):
        subject.load("generated_0", 2)


def test_frame_moves_to_another_device_as_a_whole(subject):
    frame = subject.load("captured", 0).to("meta")
    tensors = (frame.image, frame.camera.R, frame.face_camera.focal, frame.params.trans, frame.face_bbox)
    assert all(tensor.is_meta for tensor in tensors)
    assert frame.index == 0
