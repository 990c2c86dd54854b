"""Files as data sets and trackers write them give the same body in the same place as the one known motion."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from common.errors import UserError
from common.motion import HandComponents, Motion, MotionOptions, load_motion, stage
from tests.motion.motions import (
    FPS,
    N_FRAMES,
    Known,
    absolute_hands,
    body,
    check_same_body,
    estimate,
    figure,
    frame_entries,
    in_source,
    known_motion,
    write_amass,
    write_entries,
)

KNOWN = known_motion()
EYES, FACE, FINGERS = (23, 24), (22, 23, 24), range(25, 55)
BODY_ONLY = KNOWN.without(*FACE, *FINGERS, n_expr=0)


def played(path: Path, components: HandComponents | None = None, **options) -> Motion:
    """The motion as it is rendered, frame by frame."""
    chosen = MotionOptions(**options)
    motion = load_motion(path, chosen, components=components)
    return stage(motion, figure(), chosen, motion.fps or FPS)


def smpl_poses(known: Known) -> np.ndarray:
    """Axis-angle (T, 72) of SMPL, whose last two joints are hands that are to be dropped."""
    hands = np.full((len(known.rotvec), 2, 3), 0.7)
    return np.concatenate([known.rotvec[:, :22], hands], axis=1).reshape(len(known.rotvec), 72)


def test_motionx_is_one_array_with_y_up(tmp_path):
    source = in_source(KNOWN, "y")
    rotvec = absolute_hands(source).reshape(N_FRAMES, -1)
    random = np.random.default_rng(0)
    array = np.concatenate(
        [
            rotvec[:, :66],  # root_orient, pose_body
            rotvec[:, 75:],  # pose_hand
            rotvec[:, 66:69],  # pose_jaw
            KNOWN.expr,
            random.normal(size=(N_FRAMES, 100)),  # face_shape
            source.trans,
            random.normal(size=(N_FRAMES, 10)),  # betas
        ],
        axis=1,
    )
    np.save(tmp_path / "000001.npy", array)
    check_same_body(played(tmp_path / "000001.npy"), KNOWN.without(*EYES))
    assert load_motion(tmp_path / "000001.npy").fps == 30


def test_aist_is_in_units_of_the_person_with_y_up(tmp_path):
    source = in_source(KNOWN, "y")
    entries = {
        "smpl_poses": smpl_poses(source).astype(np.float32),
        "smpl_scaling": np.array([93.5], np.float32),
        "smpl_trans": source.trans * 93.5,
        "smpl_loss": 1.25,
    }
    path = write_entries(tmp_path / "gBR_sBM_cAll_d04_mBR0_ch01.pkl", entries)
    check_same_body(played(path), BODY_ONLY)
    assert load_motion(path).fps == 60
    with pytest.raises(UserError, match="smpl_scaling must be one number above 0"):
        load_motion(write_entries(tmp_path / "zero.pkl", entries | {"smpl_scaling": np.zeros(1)}))


def test_edge_is_in_metres_with_z_up(tmp_path):
    source = in_source(KNOWN, "z")
    entries = {
        "smpl_poses": smpl_poses(source),
        "smpl_trans": source.trans,
        "full_pose": np.zeros((N_FRAMES, 24, 3)),
    }
    check_same_body(played(write_entries(tmp_path / "test_0.pkl", entries)), BODY_ONLY)


def test_beat2_has_y_up(tmp_path):
    path = write_amass(
        tmp_path / "1_wayne_0_1_1.npz", KNOWN, "y", expressions=KNOWN.expr, model=np.array("smplx2020")
    )
    check_same_body(played(path), KNOWN)


def wham_person(known: Known, in_camera: Known) -> dict:
    world = in_source(known, "y")
    return {
        "pose": smpl_poses(in_camera),
        "trans": in_camera.trans,
        "pose_world": smpl_poses(world),
        "trans_world": world.trans,
        "betas": np.zeros((N_FRAMES, 10)),
        "verts": np.zeros((N_FRAMES, 10, 3)),
        "frame_ids": np.arange(N_FRAMES),
    }


def test_wham_in_its_world_and_in_camera_space(tmp_path):
    moved = known_motion(1)
    moved_body = moved.without(*FACE, *FINGERS, n_expr=0)
    persons = {np.int64(0): wham_person(KNOWN, moved), np.int64(2): wham_person(moved, KNOWN)}
    path = write_entries(tmp_path / "wham_output.pkl", persons)
    check_same_body(played(path), BODY_ONLY)
    check_same_body(played(path, up="camera"), moved_body)
    check_same_body(played(path, person=2), moved_body)
    assert len(load_motion(write_entries(tmp_path / "one.pkl", {0: persons[np.int64(0)]}))) == N_FRAMES


def test_phalp_follows_one_person_through_the_frames(tmp_path, caplog):
    entries = estimate(KNOWN, "matrices")
    frames = {}
    for i in range(N_FRAMES):
        smpl = {
            "global_orient": entries["global_orient"][i].astype(np.float32),
            "body_pose": np.concatenate([entries["body_pose"][i], np.tile(np.eye(3), (2, 1, 1))]),
            "betas": np.zeros(10),
        }
        other = smpl | {"global_orient": np.eye(3)[None]}
        is_late = i >= 2  # a second person comes in, and is listed first
        frames[f"video/img/{i + 1:06d}.jpg"] = {
            "time": i,
            "shot": 0,
            "tid": [7, 4] if is_late else [4],
            "smpl": [other, smpl] if is_late else [smpl],
            "camera": [np.zeros(3), KNOWN.trans[i]] if is_late else [KNOWN.trans[i]],
            "size": [[720, 1280]] * 2,
            "conf": [np.float32(0.9)],
            "mask": [[{"size": [720, 1280], "counts": b"ab"}]],
        }
    path = tmp_path / "demo_video.pkl"
    path.write_bytes(pickle.dumps(dict(reversed(frames.items()))))
    with caplog.at_level(logging.INFO):
        check_same_body(played(path, up="camera", camera="front"), BODY_ONLY, 1e-3)
    assert "has the persons 4, 7; the first is taken" in caplog.text
    motion = load_motion(path, MotionOptions(person=7))
    assert motion.indices == (2, 3, 4) and motion.params.trans.abs().max() == 0


def easymocap_frames(known: Known) -> list[dict]:
    """EasyMocap's parameters: x = R x0 + Th with the body at rest in x0, turned about its own origin."""
    source = in_source(known, "z")
    pelvis = body().zero_pose_joints(None)[0].double().numpy()
    R = Rotation.from_rotvec(source.rotvec[:, 0])
    Th = source.trans + pelvis - R.apply(pelvis)
    poses = smpl_poses(source)
    poses[:, :3] = 0
    return [
        {"id": 3, "Rh": source.rotvec[i : i + 1, 0], "Th": Th[i : i + 1], "poses": poses[i : i + 1]}
        for i in range(N_FRAMES)
    ]


@pytest.mark.parametrize("has_annots", [False, True])
def test_easymocap_turns_about_the_origin(tmp_path, has_annots):
    frames, others = easymocap_frames(KNOWN), easymocap_frames(known_motion(1))
    for i in range(N_FRAMES):
        persons = [frames[i]] if i == 1 else [others[i] | {"id": 5}, frames[i]]
        write_entries(tmp_path / "smpl" / f"{i:06d}.json", {"annots": persons} if has_annots else persons)
    check_same_body(played(tmp_path / "smpl"), BODY_ONLY)
    other = known_motion(1).without(*FACE, *FINGERS, n_expr=0)
    seen = [0, 2, 3, 4]
    left = Known(other.rotvec[seen], other.expr[seen], other.trans[seen])
    check_same_body(played(tmp_path / "smpl", person=5), left)


def test_easymocap_smplx_has_components_of_hands_before_the_face(tmp_path):
    random = np.random.default_rng(0)
    components = {f"hands_components{side}": random.normal(size=(45, 45)) * 0.1 for side in "lr"}
    (tmp_path / "models" / "smplx").mkdir(parents=True)
    np.savez(tmp_path / "models" / "smplx" / "SMPLX_MALE.npz", **components)
    coefficients = random.normal(size=(N_FRAMES, 12))
    expected = KNOWN.without(n_expr=10)
    for columns, side, first in ((slice(0, 6), "l", 25), (slice(6, 12), "r", 40)):
        full = coefficients[:, columns] @ components[f"hands_components{side}"][:6]
        expected.rotvec[:, first : first + 15] = full.reshape(N_FRAMES, 15, 3)
    face = KNOWN.rotvec[:, 22:25].reshape(N_FRAMES, 9)
    for i, frame in enumerate(easymocap_frames(KNOWN)):
        poses = np.concatenate([frame["poses"][0, :66], coefficients[i], face[i]])[None]
        frame |= {"poses": poses, "expression": KNOWN.expr[i : i + 1, :10], "shapes": np.zeros((1, 10))}
        write_entries(tmp_path / "smplx" / f"{i:06d}.json", [frame])
    check_same_body(played(tmp_path, HandComponents(tmp_path / "models", "male")), expected)


def test_easymocap_with_another_turn_in_its_poses_is_refused(tmp_path):
    frame = easymocap_frames(KNOWN)[0]
    frame["poses"] = frame["poses"] + 0.1
    with pytest.raises(UserError, match="first 3 numbers of poses must be zero"):
        load_motion(write_entries(tmp_path / "a.json", [frame]))
    frame["poses"] = np.zeros((1, 69))
    with pytest.raises(UserError, match=r"poses has shape \(1, 69\); known are frames of 72 \(SMPL\)"):
        load_motion(write_entries(tmp_path / "a.json", [frame]))


def test_xhumans_names_its_frames_in_the_middle(tmp_path):
    entries = estimate(KNOWN)
    for i in range(N_FRAMES):
        write_entries(tmp_path / "SMPLX" / f"mesh-f{i + 8:05d}_smplx.pkl", frame_entries(entries, i))
    motion = played(tmp_path)
    check_same_body(motion, KNOWN)
    assert motion.indices == (8, 9, 10, 11, 12)


def test_smplifyx_has_a_folder_a_frame_and_a_file_a_person(tmp_path):
    second = known_motion(1)
    for person, known in enumerate((KNOWN, second)):
        entries = estimate(known)
        for i in range(N_FRAMES):
            frame = {name: value[None] for name, value in frame_entries(entries, i).items()}
            frame["camera_translation"] = frame.pop("transl")
            frame["camera_rotation"] = np.eye(3)[None]
            write_entries(tmp_path / "results" / f"img_{i + 8}" / f"{person:03d}.pkl", frame)
    motion = played(tmp_path)
    check_same_body(motion, KNOWN)
    assert motion.indices == (8, 9, 10, 11, 12)
    check_same_body(played(tmp_path / "results", person=1), second)


def test_two_files_of_one_frame_are_refused(tmp_path):
    frame = frame_entries(estimate(KNOWN), 0)
    for name in ("left_1.npz", "right_1.npz"):
        write_entries(tmp_path / name, frame)
    with pytest.raises(UserError, match=r"right_1\.npz has the number of .*left_1\.npz"):
        load_motion(tmp_path)


@pytest.mark.parametrize("shape", [(30, 263), (30, 22, 3), (322,)])
def test_arrays_of_other_meaning_are_refused(tmp_path, shape):
    np.save(tmp_path / "new_joint_vecs.npy", np.zeros(shape))
    found = "one array of " + "x".join(map(str, shape))
    with pytest.raises(UserError, match=rf"{found}; known: .*Motion-X \.npy"):
        load_motion(tmp_path / "new_joint_vecs.npy")


def test_arrays_of_python_objects_are_refused_without_running_them(tmp_path):
    target = tmp_path / "executed"
    np.save(tmp_path / "bomb.npy", np.array([_Bomb(target)], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="Python objects"):
        load_motion(tmp_path / "bomb.npy")
    assert not target.exists()
    np.load(tmp_path / "bomb.npy", allow_pickle=True)  # the bomb does work
    assert target.exists()


class _Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)
