"""A tiny person on the tiny body: avatar, skinning field, poses and training frames, and their mirror images."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import roma
import torch
from torch import Tensor

from common.avatar import Avatar
from common.body_model.body import BodyModel
from common.body_model.data import BodyData
from common.body_model.identity import Identity
from common.camera import Camera
from common.joints import JOINTS, N_JOINTS
from common.objective import Objective
from common.pose import SmplxParams
from common.pose_table import PoseTable
from common.skinning_field import SkinningField, build_skinning_field
from common.trainer import PersonModel, Schedule, Trainer, avatar_parameter_groups, make_optimizer
from data.dataset import Subject, training_list
from main.config import AvatarConfig, FieldConfig, LossConfig, OptimConfig
from tests.body_model.bodies import tiny_body_data
from tests.data.tiny_subject import FRAMES, PATCH, UNLISTED, write_subject

DISTANCE_M = 3.0  # of the person from the camera
CONFIG = AvatarConfig(triplane_resolution=7)
MIRROR = torch.tensor([-1.0, 1.0, 1.0])


def random_rotations(n: int, angle: float, generator: torch.Generator) -> Tensor:
    """Axis-angle vectors (n, 3) of about `angle` radians."""
    return torch.randn(n, 3, generator=generator) * angle / 3**0.5


def tiny_params(seed: int, angle: float = 0.3) -> SmplxParams:
    """A random pose and expression, upright in front of the camera."""
    generator = torch.Generator().manual_seed(seed)
    zeros = SmplxParams.zeros()
    poses = {
        name: random_rotations(value.numel() // 3, angle, generator).reshape(value.shape)
        for name, value in vars(zeros).items()
        if name.endswith("_pose")
    }
    poses["root_pose"] = torch.tensor([np.pi, 0.0, 0.0]) + poses["root_pose"] * 0.3
    trans = torch.randn(3, generator=generator) * 0.02 + torch.tensor([0.0, 0.0, DISTANCE_M])
    return SmplxParams(**poses, expr=torch.randn(50, generator=generator) * 0.5, trans=trans)


def tiny_camera(
    height: int = 48, width: int = 32, is_moved: bool = True, dtype: torch.dtype = torch.float32
) -> Camera:
    """A camera that sees the whole person; with R = I, t = 0 unless `is_moved`."""
    camera = Camera.identity((1.4 * height, 1.45 * height), (width / 2, height / 2), height, width).to(dtype)
    if not is_moved:
        return camera
    R = roma.rotvec_to_rotmat(torch.tensor([0.4, -1.1, 0.3], dtype=dtype))
    return replace(camera, R=R, t=torch.tensor([0.3, -0.2, 0.7], dtype=dtype))


def tiny_field(body: BodyModel) -> SkinningField:
    """A coarse field without empty cells."""
    vertices = body.neutral_vertices(None, jaw_open=False)
    settings = FieldConfig(resolution=12, n_iterations=40, threshold_m=0.08)
    return build_skinning_field(vertices, body.skinning_weights, settings, progress=False)


def tiny_avatar(data: BodyData | None = None, seed: int = 0) -> Avatar:
    """An avatar with a random identity and random parameters, on a body subdivided once."""
    body = BodyModel(data or tiny_body_data(), 1)
    torch.manual_seed(seed)
    identity = Identity(
        shape=torch.randn(100),
        face_offset=torch.randn(body.n_vertices, 3) * 0.002,
        joint_offset=torch.randn(N_JOINTS, 3) * 0.005,
    )
    avatar = Avatar(CONFIG, body, tiny_field(body), identity)
    with torch.no_grad():
        avatar.mean_offset.normal_(0, 0.003)
        avatar.scale.normal_(-3.5, 0.2)
        for parameter in (avatar.rgb, avatar.rgb_aux, avatar.seg, avatar.triplane):
            parameter.normal_()
    return avatar


def without_pose_offset(avatar: Avatar) -> Avatar:
    """The same avatar with a last layer of zeros in its offset net."""
    with torch.no_grad():
        for parameter in avatar.mean_offset_offset_net[-1].parameters():
            parameter.zero_()
    return avatar


def tiny_model(seed: int = 0) -> PersonModel:
    """An avatar with a pose for every frame of the tiny subject, test frames included."""
    frames = {split: list(indices) for split, indices in FRAMES.items()}
    frames[UNLISTED[0]].append(UNLISTED[1])
    poses = {
        split: {index: tiny_params(seed + 100 * i + index) for index in indices}
        for i, (split, indices) in enumerate(frames.items())
    }
    return PersonModel(tiny_avatar(seed=seed), PoseTable(poses))


def tiny_subject(folder: Path) -> Subject:
    """The tiny subject's folder, for the tiny body."""
    return Subject(write_subject(folder, n_vertices=tiny_body_data().n_vertices), PATCH)


def tiny_objective(model: PersonModel, config: LossConfig | None = None) -> Objective:
    """The objective with the avatar's current colours as the initial ones and without LPIPS."""
    initial = torch.sigmoid(model.persona.rgb.detach()).clone()
    return Objective(model, config or LossConfig(), initial, None)


def tiny_trainer(model: PersonModel, subject: Subject, seed: int = 0, n_epochs: int = 1) -> Trainer:
    """A trainer of all avatar and pose parameters on the subject's training frames."""
    optim, poses = OptimConfig(n_epochs=n_epochs), model.smplx_param_dict
    groups = avatar_parameter_groups(model.persona, optim) + poses.parameter_groups(
        optim.lr_smplx, optim.lr_hand
    )
    keys = training_list(subject)
    return Trainer(
        model=model,
        optimizer=make_optimizer(groups, optim),
        base_lr={group["name"]: group["lr"] for group in groups},
        schedule=Schedule(n_epochs, len(keys), optim.lr_drop_at, optim.lr_drop),
        subject=subject,
        keys=keys,
        losses=tiny_objective(model).training,
        device=torch.device("cpu"),
        seed=seed,
        on_step=lambda iteration, terms: None,
    )


def mirrored_joints() -> np.ndarray:
    """For every joint the one on the other side."""
    swap = {"left": "right", "right": "left"}
    names = ["_".join(swap.get(part, part) for part in name.split("_")) for name in JOINTS]
    return np.array([JOINTS.index(name) for name in names])


def mirrored_vertices(vertices: np.ndarray) -> np.ndarray:
    """For every vertex (V, 3) of a symmetric mesh the one on the other side."""
    distance = np.linalg.norm(vertices[:, None] * MIRROR.numpy() - vertices, axis=-1)
    assert distance.min(1).max() < 1e-6
    return distance.argmin(1)


def symmetric_body_data() -> BodyData:
    """The tiny body with everything made equal on both sides."""
    data, joints = tiny_body_data(), mirrored_joints()
    vertices = mirrored_vertices(data.v_template)
    sign = MIRROR.numpy()

    def mean(values: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
        return ((values + mirrored) / 2).astype(np.float32)

    weights, regressor = data.skinning_weights, data.joint_regressor
    rotations = data.pose_dirs.reshape(-1, 3, N_JOINTS - 1, 3, 3)
    signs = np.einsum("a,b,c->abc", sign, sign, sign)[:, None]  # of (direction, joint, row, column)
    rotations = mean(rotations, rotations[vertices][:, :, joints[1:] - 1] * signs)
    return replace(
        data,
        skinning_weights=mean(weights, weights[vertices][:, joints]),
        joint_regressor=mean(regressor, regressor[joints][:, vertices]),
        shape_dirs=mean(data.shape_dirs, data.shape_dirs[vertices] * sign[:, None]),
        expr_dirs=mean(data.expr_dirs, data.expr_dirs[vertices] * sign[:, None]),
        pose_dirs=rotations.reshape(data.pose_dirs.shape),
        right_hand_mean=(data.left_hand_mean * -sign).astype(np.float32),
        expression_vertices=np.union1d(data.expression_vertices, vertices[data.expression_vertices]),
    )


def mirrored_params(params: SmplxParams) -> SmplxParams:
    """The pose of the mirror image: sides swapped, rotations about y and z and the place in x reversed."""
    rotation, swapped = -MIRROR, {"lhand_pose": "rhand_pose", "rhand_pose": "lhand_pose"}
    swapped |= {"leye_pose": "reye_pose", "reye_pose": "leye_pose"}
    poses = {
        field.name: getattr(params, swapped.get(field.name, field.name)) * rotation
        for field in fields(params)
        if field.name.endswith("_pose")
    }
    poses["body_pose"] = poses["body_pose"][mirrored_joints()[1:22] - 1]
    return SmplxParams(**poses, expr=params.expr, trans=params.trans * MIRROR)
