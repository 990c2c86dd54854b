"""Every format and layout gives the same body in the same place as the one known motion."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from common.io.parameters import SMPLX_SHAPES
from common.motion import HandComponents, Motion, MotionOptions, load_motion, stage
from tests.motion.motions import (
    FPS,
    FROM_SOURCE,
    N_FRAMES,
    absolute_hands,
    check_same_body,
    estimate,
    figure,
    frame_entries,
    in_source,
    known_motion,
    write_amass,
    write_amass_parts,
    write_entries,
)

KNOWN = known_motion()
FINGERS, FACE = range(25, 55), (22, 23, 24)


def played(path: Path, components: HandComponents | None = None, **options) -> Motion:
    """The motion as it is rendered."""
    chosen = MotionOptions(**options)
    return stage(load_motion(path, chosen, components=components), figure(), chosen, FPS)


@pytest.mark.parametrize("camera", ["front", "follow", "orbit"])
def test_amass_smplx_in_every_camera(tmp_path, camera):
    path = write_amass(tmp_path / "a.npz", KNOWN, expressions=KNOWN.expr)
    check_same_body(played(path, camera=camera), KNOWN)


def test_amass_with_one_entry_a_part(tmp_path):
    check_same_body(played(write_amass_parts(tmp_path / "a.npz", KNOWN)), KNOWN.without(n_expr=0))


def test_amass_smplh_has_no_face(tmp_path):
    check_same_body(
        played(write_amass(tmp_path / "a.npz", KNOWN, n_values=156)), KNOWN.without(*FACE, n_expr=0)
    )


def test_amass_smpl_drops_its_hand_joints(tmp_path):
    expected = KNOWN.without(*FACE, *FINGERS, n_expr=0)
    path = write_amass(tmp_path / "a.npz", KNOWN, n_values=72)
    check_same_body(played(path), expected)
    with np.load(path) as arrays:
        write_amass(tmp_path / "b.npz", KNOWN, poses=arrays["poses"].reshape(-1, 24, 3))
    check_same_body(played(tmp_path / "b.npz"), expected)


@pytest.mark.parametrize("up", FROM_SOURCE)
def test_up_axis_as_said(tmp_path, up):
    path = write_amass(tmp_path / "a.npz", KNOWN, up, expression=KNOWN.expr)
    check_same_body(played(path, up=up), KNOWN)
    source = write_entries(tmp_path / "e.npz", estimate(in_source(KNOWN, up)))
    check_same_body(played(source, up=up), KNOWN)


def test_other_up_axis_gives_another_body(tmp_path):
    path = write_amass(tmp_path / "a.npz", KNOWN, "y", expression=KNOWN.expr)
    with pytest.raises(AssertionError, match="joints differ"):
        check_same_body(played(path, up="z"), KNOWN)


def test_person_on_another_axis_is_warned_about(tmp_path, caplog):
    path = write_amass(tmp_path / "a.npz", KNOWN, "y")
    with caplog.at_level(logging.WARNING):
        played(path)
    assert "stands along the axis of --up y" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        played(path, up="y")
    assert caplog.text == ""


@pytest.mark.parametrize("suffix", [".npz", ".json", ".pkl", ".pt"])
@pytest.mark.parametrize("layout", ["flat", "joints", "matrices"])
def test_stacked_estimates(tmp_path, suffix, layout):
    check_same_body(played(write_entries(tmp_path / f"e{suffix}", estimate(KNOWN, layout))), KNOWN)


@pytest.mark.parametrize("suffix", [".npz", ".json", ".pkl"])
@pytest.mark.parametrize("layout", ["flat", "joints", "matrices"])
@pytest.mark.parametrize("has_leading_axis", [True, False])
def test_folders_with_one_file_a_frame(tmp_path, suffix, layout, has_leading_axis):
    entries = estimate(KNOWN, layout)
    for i in range(N_FRAMES):
        frame = frame_entries(entries, i)
        if has_leading_axis:
            frame = {name: value[None] for name, value in frame.items()}
        write_entries(tmp_path / "run" / f"frame_{i + 8}{suffix}", frame)  # 8 .. 12: numeric, not alphabetic
    motion = played(tmp_path / "run")
    check_same_body(motion, KNOWN)
    assert motion.indices == (8, 9, 10, 11, 12) and motion.name == "run"


@pytest.mark.parametrize("suffix", [".json", ".pkl"])
def test_frames_in_one_file_as_a_list_or_by_number(tmp_path, suffix):
    frames = [frame_entries(estimate(KNOWN, "joints"), i) for i in range(N_FRAMES)]
    check_same_body(played(write_entries(tmp_path / f"list{suffix}", frames)), KNOWN)
    by_number = {str(i + 8): frame for i, frame in enumerate(frames)}
    motion = played(write_entries(tmp_path / f"numbers{suffix}", by_number))
    check_same_body(motion, KNOWN)
    assert motion.indices == (8, 9, 10, 11, 12)


def test_this_projects_parameter_files_without_cameras(tmp_path):
    for i in range(N_FRAMES):
        params = KNOWN.params(i)
        write_entries(tmp_path / f"{i}.json", {name: getattr(params, name).numpy() for name in SMPLX_SHAPES})
    check_same_body(played(tmp_path), KNOWN)


def test_ten_expressions_fill_the_first_ten(tmp_path):
    entries = estimate(KNOWN, n_expr=10)
    check_same_body(played(write_entries(tmp_path / "e.npz", entries)), KNOWN.without(n_expr=10))


def test_entries_of_one_frame_stand_for_all_and_missing_ones_for_rest(tmp_path):
    entries = estimate(KNOWN)
    for name in ("jaw_pose", "leye_pose", "reye_pose", "left_hand_pose", "right_hand_pose"):
        entries[name] = entries[name][:1] * 0
    expected = KNOWN.without(*FACE, *FINGERS)
    check_same_body(played(write_entries(tmp_path / "e.npz", entries)), expected)
    few = {name: entries[name] for name in ("global_orient", "body_pose", "transl")}
    check_same_body(played(write_entries(tmp_path / "few.npz", few)), expected.without(n_expr=0))


def test_smpl_body_of_23_joints(tmp_path):
    entries = estimate(KNOWN)
    entries["body_pose"] = np.concatenate([entries["body_pose"], np.full((N_FRAMES, 6), 0.7)], axis=1)
    check_same_body(played(write_entries(tmp_path / "e.npz", entries)), KNOWN)


def test_three_frames_are_not_taken_for_one_matrix(tmp_path):
    entries = {name: value[:3] for name, value in estimate(KNOWN).items()}  # global_orient is 3 x 3
    expected = known_motion()
    motion = played(write_entries(tmp_path / "e.npz", entries))
    check_same_body(motion, type(expected)(expected.rotvec[:3], expected.expr[:3], expected.trans[:3]))


def test_camera_translation_is_added(tmp_path):
    entries = estimate(KNOWN)
    entries["camera_translation"] = np.tile([0.1, -0.2, 1.5], (N_FRAMES, 1))
    entries["transl"] = entries["transl"] - entries["camera_translation"]
    entries["camera_rotation"] = np.eye(3)[None]
    check_same_body(played(write_entries(tmp_path / "e.pkl", entries)), KNOWN)
    del entries["transl"]
    entries["camera_translation"] = KNOWN.trans
    check_same_body(played(write_entries(tmp_path / "e.pkl", entries)), KNOWN)


def test_intrinsics_become_the_motions_own_cameras(tmp_path):
    entries = estimate(KNOWN) | {"focal": np.array([500.0, 510.0]), "princpt": np.array([160.0, 120.0])}
    path = write_entries(tmp_path / "e.npz", entries)
    motion = played(path)
    check_same_body(motion, KNOWN)
    assert (motion.height, motion.width) == (240, 320)
    assert motion.frames[0].camera.focal.tolist() == [500, 510]
    assert motion.params.trans == pytest.approx(KNOWN.trans, abs=1e-6)  # camera space, untouched
    check_same_body(played(path, camera="front"), KNOWN)


def test_world_and_camera_versions_in_one_file(tmp_path):
    K = np.tile(np.array([[600.0, 0, 320], [0, 600, 180], [0, 0, 1]]), (N_FRAMES, 1, 1))
    moved = known_motion(1)
    both = {
        "smpl_params_global": estimate(in_source(KNOWN, "y")),
        "smpl_params_incam": estimate(moved),
        "K_fullimg": K,
    }
    path = write_entries(tmp_path / "hmr4d_results.pt", both)
    check_same_body(played(path), KNOWN)
    check_same_body(played(path, up="camera", camera="follow"), moved)
    motion = played(path, camera="motion")
    check_same_body(motion, moved)
    assert (motion.height, motion.width) == (360, 640)


@pytest.mark.parametrize("layout", ["amass", "flat", "matrices"])
def test_meaning_of_zero_finger_rotations_can_be_said(tmp_path, layout):
    """Files with the other meaning than usual, read with --hands."""
    if layout == "amass":  # relative to the mean hand
        rotvec = in_source(KNOWN, "z").rotvec.reshape(N_FRAMES, -1)
        path = write_amass(tmp_path / "a.npz", KNOWN, poses=rotvec, expression=KNOWN.expr)
        hands = "relative"
    elif layout == "flat":  # absolute
        rotvec = absolute_hands(KNOWN).reshape(N_FRAMES, -1)
        entries = estimate(KNOWN) | {"left_hand_pose": rotvec[:, 75:120], "right_hand_pose": rotvec[:, 120:]}
        path, hands = write_entries(tmp_path / "e.npz", entries), "flat"
    else:  # matrices relative to the mean hand
        path, hands = write_entries(tmp_path / "e.npz", estimate(KNOWN, "matrices")), "flat"
    check_same_body(played(path, hands=hands), KNOWN)
    if layout != "matrices":
        with pytest.raises(AssertionError, match="differ by"):
            check_same_body(played(path), KNOWN)


@pytest.mark.parametrize("n_components", [6, 12, 44])
def test_principal_components_of_hands(tmp_path, n_components):
    random = np.random.default_rng(0)
    components = {f"hands_components{side}": random.normal(size=(45, 45)) * 0.1 for side in "lr"}
    (tmp_path / "models" / "smplx").mkdir(parents=True)
    np.savez(tmp_path / "models" / "smplx" / "SMPLX_MALE.npz", **components)
    coefficients = random.normal(size=(2, N_FRAMES, n_components))
    expected = KNOWN.without()
    for i, (side, first) in enumerate((("l", 25), ("r", 40))):
        full = sum(
            coefficients[i][:, k, None] * components[f"hands_components{side}"][k]
            for k in range(n_components)
        )
        expected.rotvec[:, first : first + 15] = full.reshape(N_FRAMES, 15, 3)
    entries = estimate(KNOWN) | {"left_hand_pose": coefficients[0], "right_hand_pose": coefficients[1]}
    path = write_entries(tmp_path / "e.npz", entries)
    check_same_body(played(path, HandComponents(tmp_path / "models", "male")), expected)


def test_persons_by_file_name_and_by_key(tmp_path, caplog):
    second = known_motion(1)
    for person, known in enumerate((KNOWN, second)):
        entries = estimate(known, "joints")
        for i in range(N_FRAMES):
            write_entries(tmp_path / "smplx" / f"{i:05d}_{person}.npz", frame_entries(entries, i))
    with caplog.at_level(logging.INFO):
        check_same_body(played(tmp_path), KNOWN)
    assert "has the persons 0, 1; the first is taken" in caplog.text
    check_same_body(played(tmp_path, person=1), second)
    by_key = {"3": estimate(KNOWN), "7": estimate(second)}
    path = write_entries(tmp_path / "tracks.pkl", by_key)
    check_same_body(played(path), KNOWN)
    check_same_body(played(path, person=7), second)


def test_frame_rate_is_read_under_both_names(tmp_path):
    for name in ("mocap_framerate", "mocap_frame_rate"):
        entries = estimate(KNOWN) | {name: 59.94}
        assert load_motion(write_entries(tmp_path / "e.npz", entries)).fps == 59.94
    assert load_motion(write_entries(tmp_path / "f.npz", estimate(KNOWN))).fps is None
