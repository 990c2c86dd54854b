"""What is no motion is refused with what was found and the known formats; nothing in a file is executed."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.motion import HandComponents, MotionOptions, load_motion, stage
from tests.motion.motions import estimate, figure, frame_entries, known_motion, write_amass, write_entries

KNOWN = known_motion()
ALL_FORMATS = ("smplx/params", "AMASS", "SMPL-X parameters", "global_orient")


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def refusal(path: Path, **options) -> str:
    with pytest.raises(UserError) as caught:
        load_motion(path, MotionOptions(**options))
    message = str(caught.value)
    assert path.name in message and "\n" not in message
    return message


@pytest.mark.parametrize("suffix", [".npz", ".json", ".pkl", ".pt"])
def test_unknown_keys_are_listed_with_the_known_formats(tmp_path, suffix):
    path = write_entries(tmp_path / f"e{suffix}", {"joints3d": np.zeros((4, 17, 3)), "score": np.zeros(4)})
    message = refusal(path)
    assert "joints3d" in message and "score" in message
    assert all(name in message for name in ALL_FORMATS)
    if suffix != ".json":
        assert "joints3d 4x17x3" in message


def test_unknown_kinds_of_files_and_folders_are_refused(tmp_path):
    (tmp_path / "walk.bvh").write_text("HIERARCHY")
    assert all(name in refusal(tmp_path / "walk.bvh") for name in (*ALL_FORMATS, "'.bvh'"))
    folder = tmp_path / "run"
    folder.mkdir()
    assert "it holds nothing" in refusal(folder)
    (folder / "video.mp4").touch()
    assert all(name in refusal(folder) for name in (*ALL_FORMATS, "it holds video.mp4"))
    assert all(name in refusal(tmp_path / "none.npz") for name in ALL_FORMATS)
    assert "a list of 2, the first with" in refusal(write_entries(tmp_path / "l.json", [{"a": 1}, {"b": 2}]))


def test_code_in_files_is_never_run(tmp_path):
    target = tmp_path / "executed"
    good = estimate(KNOWN)
    pickled = tmp_path / "bomb.pkl"
    pickled.write_bytes(pickle.dumps({**good, "betas": Bomb(target)}))
    assert "refused: it contains pathlib" in refusal(pickled)
    torch.save({**good, "betas": Bomb(target)}, tmp_path / "bomb.pt")
    refusal(tmp_path / "bomb.pt")
    np.savez(tmp_path / "bomb.npz", **{**good, "body_pose": np.array([Bomb(target)], dtype=object)})
    assert "body_pose" in refusal(tmp_path / "bomb.npz")
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "0.pkl").write_bytes(pickle.dumps({**frame_entries(good, 0), "betas": Bomb(target)}))
    with pytest.raises(UserError, match="refused"):
        load_motion(folder)
    assert not target.exists()
    pickle.loads(pickled.read_bytes())  # the bomb does work
    assert target.exists()


def test_python_objects_that_are_not_needed_do_not_hinder(tmp_path):
    target = tmp_path / "executed"
    bomb = np.array([Bomb(target)], dtype=object)
    motion = load_motion(write_amass(tmp_path / "a.npz", KNOWN, labels=bomb))
    assert len(motion) == 5 and not target.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"body_pose": np.zeros((5, 60))}, r"body_pose has shape \(5, 60\)"),
        ({"body_pose": np.zeros((5, 21, 3, 3))}, "body_pose .* no rotation matrices"),
        ({"global_orient": np.zeros((4, 3))}, r"global_orient has shape \(4, 3\)"),
        ({"transl": np.full((5, 3), np.nan)}, "transl has NaN"),
        ({"transl": np.zeros((4, 3))}, r"transl has shape \(4, 3\)"),
        ({"left_hand_pose": np.zeros((5, 50))}, r"left_hand_pose has shape \(5, 50\)"),
        ({"expression": np.zeros((4, 10))}, r"expression has shape \(4, 10\)"),
        ({"jaw_pose": np.array(["a"] * 5)}, "jaw_pose is not an array of numbers"),
        ({"fps": 0}, "fps must be one number"),
        ({"camera_rotation": np.zeros((5, 3))}, r"camera_rotation has shape \(5, 3\)"),
        ({"camera_rotation": np.diag([1.0, -1.0, -1.0])}, "camera_rotation is not the identity"),
    ],
)
def test_wrong_entries_are_named(tmp_path, change, said):
    path = write_entries(tmp_path / "e.npz", estimate(KNOWN) | change)
    with pytest.raises(UserError, match=said):
        load_motion(path)


def test_wrong_poses_of_amass_are_named(tmp_path):
    message = refusal(write_amass(tmp_path / "a.npz", KNOWN, poses=np.zeros((5, 100))))
    assert "poses has 100 numbers a frame; known are 165 (SMPL-X), 156 (SMPL+H), 72 (SMPL)" in message
    message = refusal(write_amass(tmp_path / "b.npz", KNOWN, trans=np.zeros((4, 3))))
    assert "trans has shape (4, 3)" in message


def test_broken_files_are_refused(tmp_path):
    for suffix in (".npz", ".json", ".pkl", ".pt"):
        path = write_entries(tmp_path / f"e{suffix}", estimate(KNOWN))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        refusal(path)
        path.write_bytes(b"")
        refusal(path)


def test_principal_components_need_the_body_s_own(tmp_path):
    path = write_entries(tmp_path / "e.npz", estimate(KNOWN) | {"left_hand_pose": np.zeros((5, 12))})
    with pytest.raises(UserError, match=r"left_hand_pose: 12 principal components .*SMPLX_MALE\.npz"):
        load_motion(path, components=HandComponents(tmp_path, "male"))


def test_folders_of_mixed_or_long_files_are_refused(tmp_path):
    frame = frame_entries(estimate(KNOWN), 0)
    write_entries(tmp_path / "0.npz", frame)
    write_entries(tmp_path / "1.json", frame)
    assert ".json and .npz" in refusal(tmp_path)
    (tmp_path / "1.json").unlink()
    write_entries(tmp_path / "1.npz", estimate(KNOWN))
    with pytest.raises(UserError, match=r"1\.npz has 5 frames; expected one"):
        load_motion(tmp_path)
    assert "--person 3" in refusal(tmp_path, person=3)


def test_several_motions_in_one_file_are_named(tmp_path):
    path = write_entries(tmp_path / "e.pkl", {"first": estimate(KNOWN), "second": estimate(KNOWN)})
    assert "several motions: first, second" in refusal(path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"camera": "motion"}, "has no cameras"),
        ({"start": 5}, "--start 5 --end 5 leaves no frame; e has frames 0 to 4"),
        ({"start": 3, "end": 3}, "--start must be 0 or more, and --end above it"),
        ({"stride": 0}, "--stride"),
        ({"fps": 0}, "--fps"),
        ({"motion_fps": -1.0}, "--motion_fps"),
        ({"focal": 0.0}, "--focal"),
        ({"height": 0}, "--height and --width"),
    ],
)
def test_options_that_cannot_be_met_are_refused(tmp_path, options, said):
    path = write_entries(tmp_path / "e.npz", estimate(KNOWN))
    chosen = MotionOptions(**options)
    with pytest.raises(UserError, match=said):
        stage(load_motion(path, chosen), figure(), chosen, 30.0)


def test_backgrounds_are_refused_where_there_are_none(tmp_path):
    path = write_entries(tmp_path / "e.npz", estimate(KNOWN))
    with pytest.raises(UserError, match="--use_bkg"):
        load_motion(path, with_background=True)
