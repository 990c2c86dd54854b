"""The subject loader against the published one (golden 09, toy subject)."""

from __future__ import annotations

import json

import numpy as np
import pytest

from data.dataset import Subject, fitting_list, rendering_list, training_list
from main.config import OptimConfig


@pytest.fixture(scope="module")
def arrays(golden):
    return golden("09_dataset_items.npz")


@pytest.fixture(scope="module")
def subject(golden_path, arrays) -> Subject:
    return Subject(golden_path("toy_subject"), face_patch_size=arrays["captured.face_patch"].shape[-1])


@pytest.fixture(scope="module")
def schedule(golden_path) -> dict:
    return json.loads(golden_path("09_schedule.json").read_text())


@pytest.mark.parametrize("prefix", ["captured", "generated"])
def test_loaded_frame_is_the_published_one(arrays, subject, golden_path, prefix):
    """The frames that golden 08 has the losses of."""
    which = json.loads(golden_path(f"08_losses_{prefix}.json").read_text())
    frame = subject.load(which["split"], which["frame_idx"])
    for name, value in {
        "img": frame.image,
        "mask": frame.mask,
        "albedo": frame.albedo,
        "face_patch": frame.face_patch,
        "depth": frame.depth,
        "normal": frame.normal,
        "seg": frame.seg,
        **{f"cam_param.{key}": getattr(frame.camera, key) for key in ("R", "t", "focal", "princpt")},
        **{
            f"cam_param_face.{key}": getattr(frame.face_camera, key) for key in ("R", "t", "focal", "princpt")
        },
    }.items():
        expected = arrays[f"{prefix}.{name}"]
        assert value.shape == expected.shape, name
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-6, atol=1e-6, err_msg=name)


def test_identity_and_merged_textures_are_the_published_ones(arrays, subject):
    textures, identity = subject.textures(), subject.identity
    for name, value in {
        "texture": textures.rgb,
        "texture_gen": textures.rgb_aux,
        "seg": textures.seg,
        "shape_param": identity.shape,
        "face_offset": identity.face_offset,
        "joint_offset": identity.joint_offset,
    }.items():
        np.testing.assert_allclose(value.numpy(), arrays[name], atol=1e-6, err_msg=name)


def test_frame_lists_are_the_published_ones(schedule, subject):
    assert [list(item) for item in training_list(subject)] == schedule["train_list"]
    assert [list(item) for item in rendering_list(subject)] == schedule["test_list"]
    repeated = fitting_list(subject, OptimConfig().fit_repeats)
    assert [list(item) for item in repeated] == schedule["fit_train_list"]
    assert [list(item) for item in fitting_list(subject)] == schedule["fit_test_list"]


def test_every_parameter_file_is_loaded_also_of_frames_that_are_not_listed(schedule, subject):
    params = subject.smplx_params()
    assert {split: list(frames) for split, frames in params.items()} == schedule["train_smplx_frames"]


def test_frames_in_the_order_of_the_published_glob_are_the_same_frames(schedule, subject):
    """Quirk 17: the published order is the file system's; here it is the numbers'."""
    published = schedule["train_smplx_frames_as_globbed"]
    assert {split: sorted(frames) for split, frames in published.items()} == {
        split: list(frames) for split, frames in subject.smplx_params().items()
    }


def test_toy_subject_passes_its_check(subject, arrays):
    n_vertices = arrays["face_offset"].shape[0]
    assert subject.problems((*("captured", "generated_0", "generated_1"), "test"), n_vertices) == []
