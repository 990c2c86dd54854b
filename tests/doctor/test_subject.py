"""A subject's wrong values are found by name: maps that are reversed, empty, of other units, off the person."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from common.body_model.body import BodyModel
from common.body_model.files import load_body_data
from common.doctor.findings import Findings
from common.doctor.picture import overlay, write_picture
from common.doctor.reprojection import view_body
from common.doctor.start import check_before_training
from common.doctor.subject import check_subject, frame_keys
from common.errors import UserError
from common.io.image import image_size, read_rgb, write_image
from data.dataset import TRAIN_SPLITS, Subject
from main.config import DEMO_BODY


@pytest.fixture(scope="module")
def body() -> BodyModel:
    return BodyModel(load_body_data(DEMO_BODY, "male"), 0)


@pytest.fixture
def subject(demo_copy) -> Subject:
    return demo_copy


def look(subject: Subject, body: BodyModel | None) -> Findings:
    findings = Findings()
    check_subject(findings, subject, body)
    return findings


def test_an_intact_subject_is_fine(subject, body):
    findings = look(subject, body)
    assert findings.exit_code == 0, findings.entries
    assert "1 in captured, 2 in generated_0, 2 in generated_1, 2 in test" in [
        entry.text for entry in findings.entries
    ]


Damage = Callable[[Path, int], object]  # of a split's folder and a frame's number


def _json(name: str, edit: Callable[[dict], object]) -> Damage:
    def damage(split: Path, index: int) -> None:
        path = split / name.format(index)
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return damage


def _array(name: str, edit: Callable[[np.ndarray], np.ndarray]) -> Damage:
    def damage(split: Path, index: int) -> None:
        path = split / name.format(index)
        np.save(path, edit(np.load(path).astype(np.float32)))

    return damage


def _image(name: str, edit: Callable[[np.ndarray], np.ndarray]) -> Damage:
    def damage(split: Path, index: int) -> None:
        path = split / name.format(index)
        pixels = (read_rgb(path).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        write_image(path, np.ascontiguousarray(edit(pixels)))

    return damage


def _copy(source: str, target: str) -> Damage:
    return lambda split, index: shutil.copy(split / source.format(index), split / target.format(index))


def _write(name: str, text: str) -> Damage:
    return lambda split, index: (split / name.format(index)).write_text(text)


MASK, IMAGE, SEG, DEPTH, NORMAL = (
    "masks/{}.png",
    "images/{}.png",
    "segs/{}.png",
    "depths/{}.npy",
    "normals/{}.npy",
)
DEPTH_MASK, NORMAL_MASK = "depths/{}_mask.npy", "normals/{}_mask.npy"
PARAMS, CAMERA, ONCE = "smplx_optimized/smplx_params/{}.json", "cam_params/{}.json", "smplx_optimized"

# name: damage, kind of finding, part of its text, level
FRAME_DAMAGES: dict[str, tuple[Damage, str, str, str]] = {
    "empty mask": (_image(MASK, lambda m: m * 0), "mask is empty", "no pixel", "error"),
    "full mask": (_image(MASK, lambda m: m * 0 + 255), "mask is full", "100.0%", "error"),
    "moved mask": (
        _image(MASK, lambda m: np.roll(m, 32, 1)),
        "body is not on the person",
        "overlap",
        "error",
    ),
    "disparity": (
        _array(DEPTH, lambda d: np.where(d > 0, d.max() + 0.1 - d, 0)),
        "depth is reversed",
        "-0.",
        "error",
    ),
    "flat depth": (_array(DEPTH, lambda d: d * 0 + 1), "depth is constant", "1 everywhere", "warning"),
    "negative depth": (_array(DEPTH, lambda d: d - 9), "depth is not positive", "100%", "warning"),
    "NaN depth": (_array(DEPTH, lambda d: d * np.nan), "depth: NaN", "valid pixels", "error"),
    "depth of nothing": (
        _array(DEPTH_MASK, lambda v: v * 0),
        "depth: not valid on the person",
        "on 0%",
        "error",
    ),
    "validity of 255": (
        _array(DEPTH_MASK, lambda v: v * 255),
        "depth: validity is not 0",
        "0 to 255",
        "error",
    ),
    "background": (
        _array(NORMAL_MASK, lambda v: v * 0 + 1),
        "normals: valid off the person",
        "% of",
        "warning",
    ),
    "normals as colours": (
        _array(NORMAL, lambda n: (n + 1) / 2),
        "normals are colours",
        "values lie in",
        "error",
    ),
    "normals away": (_array(NORMAL, lambda n: n * [1, 1, -1]), "normals point away", "100%", "error"),
    "normals y down": (_array(NORMAL, lambda n: n * [1, -1, 1]), "normals: y is reversed", "-0.", "error"),
    "normals x left": (_array(NORMAL, lambda n: n * [-1, 1, 1]), "normals: x is reversed", "-0.", "error"),
    "long normals": (_array(NORMAL, lambda n: n * 1.5), "normals are not unit", "100%", "warning"),
    "one part": (_image(SEG, lambda s: s * 0 + 9), "segmentation has one colour", "one part", "warning"),
    "black image": (_image(IMAGE, lambda s: s * 0), "image is empty", "one colour", "error"),
    "behind the camera": (
        _json(PARAMS, lambda c: c["trans"].__setitem__(2, -4.0)),
        "person is behind the camera",
        "to -",
        "error",
    ),
    "outside the image": (
        _json(PARAMS, lambda c: c["trans"].__setitem__(0, 40.0)),
        "person is outside the image",
        "no vertex",
        "error",
    ),
    "degrees": (
        _json(PARAMS, lambda c: c.update(root_pose=[180.0, 0.0, 0.0])),
        "pose in degrees?",
        "180",
        "warning",
    ),
    "millimetres": (
        _json(PARAMS, lambda c: c.update(trans=[0.0, 300.0, 4000.0])),
        "trans in millimetres?",
        "4000",
        "warning",
    ),
    "focal in millimetres": (
        _json(CAMERA, lambda c: c.update(focal=[20.0, 20.0])),
        "focal length",
        "20, 20",
        "warning",
    ),
    "focal of two kinds": (
        _json(CAMERA, lambda c: c["focal"].__setitem__(0, 3 * c["focal"][0])),
        "focal length",
        "in x and",
        "warning",
    ),
    "principal point": (
        _json(CAMERA, lambda c: c.update(princpt=[960.0, 540.0])),
        "principal point",
        "960",
        "warning",
    ),
}
PHOTO_DAMAGES: dict[str, tuple[Damage, str, str, str]] = {
    "offsets in millimetres": (
        _write(f"{ONCE}/joint_offset.json", json.dumps([[3.0, 0, 0]] * 55)),
        "identity",
        "3.00 m",
        "warning",
    ),
    "average body": (
        _write(f"{ONCE}/shape_param.json", json.dumps([0.0] * 100)),
        "identity",
        "all zero",
        "warning",
    ),
    "photo as albedo": (
        _copy(IMAGE, "image_intrinsics/{}_albedo.png"),
        "albedo is the photo",
        "light",
        "warning",
    ),
    "face box": (
        _write("face_patches/bbox/{}.json", "[0, 70, 20, 20]"),
        "face box is not on the face",
        "holds 0%",
        "warning",
    ),
    "empty patch": (
        _image("face_patches/images/{}.png", lambda p: p * 0),
        "face patch is empty",
        "one",
        "error",
    ),
    "empty texture mask": (
        _image(f"{ONCE}/smplx_texture_mask.png", lambda m: m * 0),
        "texture mask is empty",
        "no texel",
        "warning",
    ),
    "empty texture": (
        _image(f"{ONCE}/smplx_texture_inpaint.png", lambda t: t * 0),
        "texture is empty",
        "inpaint",
        "error",
    ),
}


@pytest.fixture(scope="module")
def damaged(tiny_demo, body, tmp_path_factory) -> dict[str, tuple[str, Findings]]:
    """For each damage the frame that has it, and the findings; frames of one copy have one damage each."""
    found = {}
    waiting = list(FRAME_DAMAGES.items())
    while waiting:
        copy = Path(shutil.copytree(tiny_demo, tmp_path_factory.mktemp("damaged") / "S"))
        findings, names = Findings(), []
        photo = PHOTO_DAMAGES.items() if not found else ()
        frames = [key for key in frame_keys(Subject(copy)) if key[0] != "captured"]
        for (split, index), (name, entry) in zip(frames, waiting, strict=False):
            entry[0](copy / split, index)
            names.append((name, f"{split} frame {index}"))
        for name, entry in photo:
            entry[0](copy / "captured", 0)
            names.append((name, ""))
        waiting = waiting[len(frames) :]
        check_subject(findings, Subject(copy), body)
        found |= {name: (where, findings) for name, where in names}
    return found


@pytest.mark.parametrize("name", FRAME_DAMAGES | PHOTO_DAMAGES)
def test_a_wrong_value_is_named_with_frame_and_remedy(damaged, name):
    _, check, text, level = (FRAME_DAMAGES | PHOTO_DAMAGES)[name]
    where, findings = damaged[name]
    found = [
        e for e in findings.entries if e.check.startswith(check) and e.level == level and where in e.text
    ]
    assert any(text in entry.text and entry.remedy for entry in found), [
        entry for entry in findings.entries if where in entry.text and entry.level != "ok"
    ]


def test_all_problems_of_all_frames_are_told_at_once(subject, body):
    (subject.root / "captured/images/0.png").unlink()
    (subject.root / "captured/depths/0.npy").unlink()
    (subject.root / "generated_0/masks/1.png").write_bytes(b"")
    (subject.root / "captured/smplx_optimized/shape_param.json").write_text("[]")
    (subject.root / "test/images/0.png").rename(subject.root / "test/images/0.jpg")
    FRAME_DAMAGES["degrees"][0](subject.root / "test", 1)
    findings = look(subject, body)
    texts = "\n".join(entry.text for entry in findings.entries if entry.level != "ok")
    for part in (
        "captured/images/0.png",
        "captured/depths/0.npy",
        "masks/1.png",
        "shape_param.json",
        "root_pose",
    ):
        assert part in texts
    assert findings.exit_code == 2


def test_missing_textures_are_answered_with_the_tool_that_makes_them(subject, body):
    (subject.root / "generated_0/smplx_optimized/smplx_seg_inpaint.png").unlink()
    errors = [entry for entry in look(subject, body).entries if entry.level == "error"]
    assert ["unwrap_texture.py --subject_id S --split generated_0" in entry.remedy for entry in errors] == [
        True
    ]


def test_a_test_frame_must_lie_in_its_video(subject, body):
    (subject.root / "test/images/1_bbox_orig.json").write_text("[0, 0, 6400, 96]")
    errors = [entry for entry in look(subject, body).entries if entry.level == "error"]
    assert [entry.check for entry in errors] == ["place of a test frame"] and "1_bbox_orig.json" in errors[
        0
    ].text


def test_without_a_body_the_files_are_checked_and_that_is_said(subject):
    findings = look(subject, None)
    assert findings.exit_code == 1
    assert [entry.check for entry in findings.entries if entry.level == "warning"] == ["fitted body"]


def test_the_picture_shows_body_and_outline_where_the_person_is(subject, body, tmp_path):
    keys = frame_keys(subject)
    assert write_picture(tmp_path / "p.png", subject, body, subject.identity, keys) == len(keys) == 7
    height, width = image_size(tmp_path / "p.png")
    assert height == 4 * 384 and width == 2 * 2 * 256
    frame = subject.load(*keys[0])
    view = view_body(body, subject.identity, frame.params, frame.camera)
    mask = frame.mask[0].numpy() > 0
    image = frame.image.permute(1, 2, 0).numpy()
    drawn = overlay(image, mask, view)
    changed = (drawn != image).any(2)
    assert changed[view.is_covered].mean() > 0.99 and not changed[~view.is_covered & ~mask].any()
    assert (view.is_covered & mask).sum() / (view.is_covered | mask).sum() > 0.6
    assert write_picture(tmp_path / "none.png", Subject(tmp_path / "nobody"), body, None, [("test", 0)]) == 0
    assert not (tmp_path / "none.png").exists()


def test_the_reprojected_body_agrees_with_the_camera(body, subject):
    frame = subject.load("captured", 0)
    view = view_body(body, subject.identity, frame.params, frame.camera)
    world = frame.camera.camera_to_world(torch.from_numpy(view.vertices))
    torch.testing.assert_close(
        frame.camera.project(world), torch.from_numpy(view.pixels), atol=1e-3, rtol=1e-4
    )
    rows, columns = np.nonzero(view.is_covered)
    assert (
        abs(columns.mean() - view.pixels[:, 0].mean()) < 5
        and abs(rows.mean() - view.pixels[:, 1].mean()) < 10
    )
    assert (view.normal[view.is_covered][:, 2] > 0).mean() > 0.95


def test_training_refuses_what_cannot_work_and_warns_of_what_may_not(subject, caplog):
    check_before_training(subject, TRAIN_SPLITS)
    assert not caplog.records
    FRAME_DAMAGES["focal in millimetres"][0](subject.root / "generated_0", 0)
    with caplog.at_level(logging.WARNING):
        check_before_training(subject, TRAIN_SPLITS)
    assert "focal length: generated_0 frame 0" in caplog.text and "doctor.py --subject_id S" in caplog.text
    FRAME_DAMAGES["behind the camera"][0](subject.root / "captured", 0)
    with pytest.raises(UserError, match=r"behind the camera: captured frame 0.*doctor\.py --subject_id S"):
        check_before_training(subject, TRAIN_SPLITS)
    (subject.root / "captured/masks/0.png").unlink()
    with pytest.raises(UserError, match=r"missing file: .*captured/masks/0\.png"):
        check_before_training(subject, TRAIN_SPLITS)
