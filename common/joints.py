"""The SMPL-X joint table: the only place where joints are named and ordered (SPEC 7)."""

from __future__ import annotations

BODY_JOINTS = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle",
    "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
)  # fmt: skip
FACE_JOINTS = ("jaw", "left_eye", "right_eye")
FINGERS = ("index", "middle", "pinky", "ring", "thumb")
LEFT_HAND_JOINTS = tuple(f"left_{finger}{i}" for finger in FINGERS for i in (1, 2, 3))
RIGHT_HAND_JOINTS = tuple(f"right_{finger}{i}" for finger in FINGERS for i in (1, 2, 3))
JOINTS = BODY_JOINTS + FACE_JOINTS + LEFT_HAND_JOINTS + RIGHT_HAND_JOINTS
N_JOINTS = len(JOINTS)  # 55

PARENTS = (
    -1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15,
    20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35, 20, 37, 38,
    21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50, 21, 52, 53,
)  # fmt: skip

# Name of each pose parameter in files and snapshots -> number of joints, in joint order.
POSE_PARAMS = {
    "root_pose": 1,
    "body_pose": 21,
    "jaw_pose": 1,
    "leye_pose": 1,
    "reye_pose": 1,
    "lhand_pose": 15,
    "rhand_pose": 15,
}
N_BODY_POSE = POSE_PARAMS["body_pose"]
N_SHAPE = 100
N_EXPR = 50


def joint_index(name: str) -> int:
    """Index of a joint by its name; ValueError if there is none."""
    return JOINTS.index(name)


HEAD, JAW = joint_index("head"), joint_index("jaw")
EYES = (joint_index("left_eye"), joint_index("right_eye"))
LEFT_HAND = tuple(joint_index(name) for name in LEFT_HAND_JOINTS)  # 25..39
RIGHT_HAND = tuple(joint_index(name) for name in RIGHT_HAND_JOINTS)  # 40..54
FINGER_JOINTS = LEFT_HAND + RIGHT_HAND
