"""MakeHuman's bones as the 55 SMPL-X joints, and bodies brought from the A-pose to the T-pose (SPEC 16)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.spatial.transform import Rotation

from common.joints import JOINTS, N_JOINTS, PARENTS, joint_index

# Finger numbers of the MakeHuman rig.
_FINGER_BONES = {"thumb": 1, "index": 2, "middle": 3, "ring": 4, "pinky": 5}
_SIDES = {"left": "L", "right": "R"}

# T-pose targets of the straightened fingers, degrees: towards the thumb's side, and down per phalanx.
_FINGER_SPREAD = {"index": 6.0, "middle": 1.0, "ring": -4.0, "pinky": -10.0}
_FINGER_DROOP = (3.0, 6.0, 9.0)
_LEG_SPREAD_DEG = 2.5  # hip to ankle, outwards from the vertical
PELVIS_POSITION = np.array([0.0, -0.35, 0.01])  # where SMPL-X bodies have their pelvis


def joint_bones(names: list[str]) -> dict[str, dict[str, float]]:
    """For each joint the bones whose skinning weights it takes, with their share; every bone is used up."""
    bones: dict[str, dict[str, float]] = {joint: {} for joint in JOINTS}
    bones["pelvis"] = {"root": 1, "pelvis.L": 1, "pelvis.R": 1, "spine05": 1, "spine04": 0.5}
    bones["spine1"] = {"spine04": 0.5, "spine03": 1}
    bones["spine2"] = {"spine02": 1, "breast.L": 1, "breast.R": 1}
    bones["spine3"] = {"spine01": 1}
    bones["neck"] = {"neck01": 1, "neck02": 1, "neck03": 0.5}
    bones["head"] = {"head": 1, "neck03": 0.5}
    jaw_bones = ("jaw", "special04", "oris01", "oris02", "oris06.L", "oris06.R", "oris07.L", "oris07.R")
    bones["jaw"] = {name: 1 for name in names if name in jaw_bones or name.startswith("tongue")}
    for side, letter in _SIDES.items():
        for joint, share in _limb_bones().items():
            bones[f"{side}_{joint}"] = {f"{bone}.{letter}": part for bone, part in share.items()}
        toes = [name for name in names if name.startswith("toe") and name.endswith(letter)]
        bones[f"{side}_foot"] = dict.fromkeys(toes, 1)
    used = {name for share in bones.values() for name in share}
    bones["head"].update(dict.fromkeys((name for name in names if name not in used), 1))  # other face bones
    return bones


def _limb_bones() -> dict[str, dict[str, float]]:
    """Bones of one side's joints."""
    limbs: dict[str, dict[str, float]] = {
        "eye": {"eye": 1},
        "collar": {"clavicle": 1, "shoulder01": 0.5},
        "shoulder": {"shoulder01": 0.5, "upperarm01": 1, "upperarm02": 1},
        "elbow": {"lowerarm01": 1, "lowerarm02": 1},
        "wrist": {"wrist": 1, **{f"metacarpal{i}": 1 for i in range(1, 5)}},
        "hip": {"upperleg01": 1, "upperleg02": 1},
        "knee": {"lowerleg01": 1, "lowerleg02": 1},
        "ankle": {"foot": 1},
    }
    for finger, number in _FINGER_BONES.items():
        limbs.update({f"{finger}{i}": {f"finger{number}-{i}": 1} for i in (1, 2, 3)})
    return limbs


def joint_weights(
    weights: np.ndarray, names: list[str], mirror: np.ndarray, eyes: dict[str, np.ndarray]
) -> np.ndarray:
    """Bone weights (V, B) gathered to joint weights (V, 55), made exactly symmetric, rows sum to 1.

    Eyeballs, given as vertices by joint name, become rigid.
    """
    gathered = np.zeros((len(weights), N_JOINTS))
    for joint, share in joint_bones(names).items():
        for bone, part in share.items():
            gathered[:, joint_index(joint)] += part * weights[:, names.index(bone)]
    for joint, vertices in eyes.items():
        gathered[vertices] = np.eye(N_JOINTS)[joint_index(joint)]
    gathered = (gathered + gathered[mirror][:, mirrored_joints()]) / 2
    gathered[gathered < 1e-3] = 0
    return gathered / gathered.sum(axis=1, keepdims=True)


def mirrored_joints() -> np.ndarray:
    """Index (55,) of each joint's counterpart on the other side."""
    swap = {"left": "right", "right": "left"}
    parts = [name.split("_", 1) for name in JOINTS]
    return np.array(
        [joint_index("_".join([swap[p[0]], p[1]])) if p[0] in swap else i for i, p in enumerate(parts)]
    )


def joint_positions(heads: np.ndarray, tails: np.ndarray, names: list[str]) -> np.ndarray:
    """Joints (..., 55, 3) of bone heads and tails (..., B, 3)."""

    def head(bone: str) -> np.ndarray:
        return heads[..., names.index(bone), :]

    def tail(bone: str) -> np.ndarray:
        return tails[..., names.index(bone), :]

    at = {
        "pelvis": (head("spine05") + tail("spine05")) / 2,
        "spine1": (head("spine04") + tail("spine04")) / 2,
        "spine2": head("spine02"),
        "spine3": head("spine01"),
        "neck": head("neck01"),
        "head": (head("neck03") + tail("neck03")) / 2,
        "jaw": head("jaw"),
    }
    firsts = {"eye": "eye", "collar": "clavicle", "shoulder": "upperarm01", "elbow": "lowerarm01",
              "wrist": "wrist", "hip": "upperleg01", "knee": "lowerleg01", "ankle": "foot"}  # fmt: skip
    for finger, number in _FINGER_BONES.items():
        firsts.update({f"{finger}{i}": f"finger{number}-{i}" for i in (1, 2, 3)})
    for side, letter in _SIDES.items():
        at.update({f"{side}_{joint}": head(f"{bone}.{letter}") for joint, bone in firsts.items()})
        at[f"{side}_foot"] = sum(head(f"toe{i}-1.{letter}") for i in range(1, 6)) / 5
    return np.stack([at[name] for name in JOINTS], axis=-2)


def t_pose_rotations(joints: np.ndarray, fingertips: dict[str, np.ndarray]) -> np.ndarray:
    """World rotations (55, 3, 3) that bring A-pose joints (55, 3) to the T-pose, palms down.

    `fingertips` gives the end (3,) of the last phalanx of each finger by joint name of that phalanx.
    """
    world = np.tile(np.eye(3), (N_JOINTS, 1, 1))
    for side, sign in (("left", 1.0), ("right", -1.0)):
        _turn_leg(world, joints, side, sign)
        _turn_arm(world, joints, side, sign)
        for finger, spread in _FINGER_SPREAD.items():
            _straighten_finger(world, joints, fingertips, side, sign, finger, np.deg2rad(spread))
    return world


def _turn_leg(world: np.ndarray, joints: np.ndarray, side: str, sign: float) -> None:
    """The whole leg, rigidly, until hip to ankle has the wanted spread."""
    hip, ankle = joints[joint_index(f"{side}_hip")], joints[joint_index(f"{side}_ankle")]
    spread = np.arctan2(sign * (ankle - hip)[0], -(ankle - hip)[1])
    turn = Rotation.from_euler("z", sign * (np.deg2rad(_LEG_SPREAD_DEG) - spread)).as_matrix()
    for name in ("hip", "knee", "ankle", "foot"):
        world[joint_index(f"{side}_{name}")] = turn


def _turn_arm(world: np.ndarray, joints: np.ndarray, side: str, sign: float) -> None:
    """Arm along the side axis; the elbow bends forwards, the palm looks down."""
    out = np.array([sign, 0.0, 0.0])

    def at(name: str) -> np.ndarray:
        return joints[joint_index(f"{side}_{name}")]

    upper, lower = at("elbow") - at("shoulder"), at("wrist") - at("elbow")
    shoulder = align(upper, out)
    bend = shoulder @ lower  # the forearm's bend shows the elbow's axis; it must point forwards
    shoulder = _twist(out, bend, np.array([0.0, 0.0, 1.0])) @ shoulder
    elbow = align(shoulder @ lower, out) @ shoulder
    wrist = align(elbow @ (at("middle1") - at("wrist")), out) @ elbow
    palm = sign * np.cross(wrist @ (at("index1") - at("wrist")), wrist @ (at("pinky1") - at("wrist")))
    roll = Rotation.from_matrix(_twist(out, palm, np.array([0.0, 1.0, 0.0]))).as_rotvec()
    world[joint_index(f"{side}_shoulder")] = shoulder
    world[joint_index(f"{side}_elbow")] = Rotation.from_rotvec(roll / 2).as_matrix() @ elbow
    world[joint_index(f"{side}_wrist")] = Rotation.from_rotvec(roll).as_matrix() @ wrist
    for i in (1, 2, 3):
        world[joint_index(f"{side}_thumb{i}")] = world[joint_index(f"{side}_wrist")]


def _straighten_finger(world, joints, fingertips, side: str, sign: float, finger: str, spread: float) -> None:
    """Phalanges of one finger onto a nearly straight line, the rotation of each kept minimal."""
    parent = joint_index(f"{side}_wrist")
    for i, droop in zip((1, 2, 3), np.deg2rad(_FINGER_DROOP), strict=True):
        joint = joint_index(f"{side}_{finger}{i}")
        end = fingertips[f"{side}_{finger}3"] if i == 3 else joints[joint + 1]
        wanted = np.array([sign * np.cos(spread), -np.tan(droop), np.sin(spread)])
        world[joint] = align(world[parent] @ (end - joints[joint]), wanted) @ world[parent]
        parent = joint


def align(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Smallest rotation (3, 3) that turns one direction (3,) into another."""
    source, target = source / np.linalg.norm(source), target / np.linalg.norm(target)
    axis, cosine = np.cross(source, target), float(source @ target)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-12:
        return np.eye(3)
    return Rotation.from_rotvec(axis / sine * np.arctan2(sine, cosine)).as_matrix()


def _twist(axis: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rotation about a unit axis that turns one direction towards another, as seen along that axis."""
    source, target = source - (source @ axis) * axis, target - (target @ axis) * axis
    angle = np.arctan2(np.cross(source, target) @ axis, source @ target)
    return Rotation.from_rotvec(angle * axis).as_matrix()


def fingertip_positions(tails: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """End (..., 3) of every last phalanx, by joint name."""
    return {
        f"{side}_{finger}3": tails[..., names.index(f"finger{number}-3.{letter}"), :]
        for side, letter in _SIDES.items()
        for finger, number in _FINGER_BONES.items()
    }


def joint_transforms(joints: np.ndarray, world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rigid transforms (55, 3, 4) of world rotations (55, 3, 3) about joints (55, 3), and the moved joints."""
    moved = np.zeros_like(joints)
    moved[0] = joints[0]
    for joint in range(1, N_JOINTS):
        parent = PARENTS[joint]
        moved[joint] = moved[parent] + world[parent] @ (joints[joint] - joints[parent])
    translation = moved - np.einsum("jab,jb->ja", world, joints)
    return np.concatenate([world, translation[:, :, None]], axis=2), moved


def to_t_pose(
    vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, world: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A-pose vertices (V, 3) and joints in the T-pose, pelvis at PELVIS_POSITION.

    Mean of forward skinning (pinches the armpits) and inverse skinning (bulges them) (SPEC 16).
    """
    transforms, moved = joint_transforms(joints, world)
    forward_blend = np.einsum("vj,jab->vab", weights, transforms)
    forward = np.einsum("vab,vb->va", forward_blend[:, :, :3], vertices) + forward_blend[:, :, 3]
    rotation_back = world.transpose(0, 2, 1)
    translation_back = -np.einsum("jab,jb->ja", rotation_back, transforms[:, :, 3])
    blend_back = np.einsum("vj,jab->vab", weights, rotation_back)
    shift_back = weights @ translation_back
    inverse = np.linalg.solve(blend_back, (vertices - shift_back)[:, :, None])[:, :, 0]
    shift = PELVIS_POSITION - moved[0]
    return (forward + inverse) / 2 + shift, moved + shift


def relaxed_hand(world: np.ndarray, side: str) -> np.ndarray:
    """Hand pose (15, 3) axis-angle that gives the T-pose's straight hand the source's relaxed curl back."""
    wrist = joint_index(f"{side}_wrist")
    back = {wrist: np.eye(3)}
    pose = []
    for joint in hand_joints(side):
        back[joint] = world[wrist] @ world[joint].T
        local = back[PARENTS[joint]].T @ back[joint]
        pose.append(Rotation.from_matrix(local).as_rotvec())
    return np.array(pose)


def hand_joints(side: str) -> Iterator[int]:
    """Indices of the 15 finger joints of one side, in joint order."""
    first = joint_index(f"{side}_index1")
    return iter(range(first, first + 15))


def mean_rotations(worlds: np.ndarray) -> np.ndarray:
    """Mean (55, 3, 3) of sampled rotations (S, 55, 3, 3)."""
    return np.stack([Rotation.from_matrix(worlds[:, j]).mean().as_matrix() for j in range(N_JOINTS)])
