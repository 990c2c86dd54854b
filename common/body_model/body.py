"""The body as a function of identity and pose, with its parts and its subdivided mesh (SPEC 7)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from common import gpu
from common.body_model.data import BodyData
from common.body_model.identity import Identity
from common.body_model.parts import (
    Parts,
    close_mouth,
    faces_within,
    high_resolution_parts,
    kinematic_reach,
    low_resolution_parts,
)
from common.joints import FINGER_JOINTS, JAW, JOINTS, LEFT_HAND, N_JOINTS, POSE_PARAMS, RIGHT_HAND
from common.mesh import NeighbourLists, Subdivider, neighbour_lists, vertex_normals
from common.pose import SmplxParams, SmplxPose
from common.rotation import rotmat_to_rotvec

NEUTRAL_ANGLE = 1 / 3  # radians, of each hip about z, and of the open jaw about x (SPEC 7)


@dataclass(frozen=True)
class BodyOutput:
    """A posed body; camera space where the pose is (SPEC 6), metres."""

    vertices: Tensor  # (V, 3)
    joints: Tensor  # (55, 3)


def neutral_pose_params(jaw_open: bool) -> SmplxParams:
    """The neutral pose: legs apart, all else zero; jaw closed, or open for static initialisation (SPEC 7)."""
    params = SmplxParams.zeros()
    params.body_pose[JOINTS.index("left_hip") - 1, 2] = NEUTRAL_ANGLE
    params.body_pose[JOINTS.index("right_hip") - 1, 2] = -NEUTRAL_ANGLE
    params.jaw_pose[0] = NEUTRAL_ANGLE if jaw_open else 0.0
    return params


class BodyModel(nn.Module):
    """A body in SMPL-X form on its own and on its subdivided mesh; V low and N high resolution vertices.

    Nothing of it is saved in snapshots; dtype and device follow `.to()`. Neighbour lists are found from the
    faces unless given.
    """

    v_template: Tensor  # (V, 3)
    shape_dirs: Tensor  # (V, 3, n_shape)
    expr_dirs: Tensor  # (V, 3, 50)
    pose_dirs: Tensor  # (486 or 0, 3V)
    joint_regressor: Tensor  # (55, V)
    skinning_weights: Tensor  # (V, 55)
    skinning_weights_high: Tensor  # (N, 55)
    hand_mean: Tensor  # (30, 3) axis-angle, left then right
    faces: Tensor  # (F, 3)
    faces_closed_mouth: Tensor  # (F + ..., 3)
    right_hand_index: Tensor  # of the N vertices
    left_hand_index: Tensor
    left_hand_faces: Tensor  # (., 3) into the V vertices
    right_hand_faces: Tensor  # (., 3)
    vertex_uv: Tensor  # (U, 2)
    face_uv: Tensor  # (F, 3) into vertex_uv
    kinematic_reach: Tensor  # (55, 55)

    def __init__(
        self,
        data: BodyData,
        n_subdivisions: int,
        neighbours_low: NeighbourLists | None = None,
        neighbours_high: NeighbourLists | None = None,
    ) -> None:
        super().__init__()
        self.data = data
        self.n_vertices = data.n_vertices
        self.parents = torch.from_numpy(data.parents.astype(np.int64))  # on the CPU: it indexes lists
        self._add_arrays(data)
        self.subdivider = Subdivider(self.faces, self.n_vertices, n_subdivisions)
        self.n_vertices_high = self.subdivider.n_vertices
        is_to_be_listed = neighbours_high is None and n_subdivisions > 0
        with ThreadPoolExecutor(1) as aside:  # it takes as long as the rest together
            listed = (
                aside.submit(neighbour_lists, self.faces_high, self.n_vertices_high)
                if is_to_be_listed
                else None
            )
            self._buffer("skinning_weights_high", self.subdivider.interpolate(self.skinning_weights))
            self.neighbours_low = neighbours_low or neighbour_lists(self.faces, self.n_vertices)
            self._add_parts(data)
        self.neighbours_high = neighbours_high or (listed.result() if listed else self.neighbours_low)

    def _buffer(self, name: str, value: Tensor | np.ndarray) -> None:
        tensor = torch.as_tensor(value)
        self.register_buffer(name, tensor.float() if tensor.is_floating_point() else tensor, persistent=False)

    def _add_arrays(self, data: BodyData) -> None:
        for name in ("v_template", "shape_dirs", "expr_dirs", "joint_regressor", "skinning_weights"):
            self._buffer(name, getattr(data, name))
        for name in ("faces", "vertex_uv", "face_uv"):
            self._buffer(name, getattr(data, name))
        pose_dirs = data.pose_dirs.reshape(3 * self.n_vertices, data.pose_dirs.shape[2])
        self._buffer("pose_dirs", np.ascontiguousarray(pose_dirs.T))
        self._buffer("hand_mean", np.concatenate([data.left_hand_mean, data.right_hand_mean]))
        self._buffer("kinematic_reach", kinematic_reach(self.parents))

    def _add_parts(self, data: BodyData) -> None:
        low = low_resolution_parts(
            self.v_template,
            vertex_normals(self.v_template, self.faces),
            self.skinning_weights,
            torch.from_numpy(data.right_hand_vertices),
            torch.from_numpy(data.left_hand_vertices),
            torch.from_numpy(data.expression_vertices),
            self.neighbours_low,
        )
        high = high_resolution_parts(low, self.skinning_weights_high, self.subdivider)
        for level, parts in (("low", low), ("high", high)):
            for name, mask in vars(parts).items():
                self._buffer(f"is_{name}_{level}", mask)
        closed = close_mouth(self.faces, low.expression, self.skinning_weights[:, JAW])
        self._buffer("faces_closed_mouth", closed)
        self._buffer("right_hand_index", high.right_hand.nonzero().squeeze(1))
        self._buffer("left_hand_index", high.left_hand.nonzero().squeeze(1))
        self._buffer("left_hand_faces", faces_within(self.faces, low.left_hand))
        self._buffer("right_hand_faces", faces_within(self.faces, low.right_hand))

    def _parts(self, level: str) -> Parts:
        names = Parts.__dataclass_fields__
        return Parts(**{name: self.get_buffer(f"is_{name}_{level}") for name in names})

    @property
    def parts_low(self) -> Parts:
        """Parts of the V low-resolution vertices."""
        return self._parts("low")

    @property
    def parts_high(self) -> Parts:
        """Parts of the N subdivided vertices."""
        return self._parts("high")

    @property
    def expr_dirs_high(self) -> Tensor:
        """Expression blend shapes (N, 3, 50) of the subdivided mesh, made on first use as the body is then."""
        if "_expr_dirs_high" not in self._buffers:
            with torch.inference_mode(False), torch.no_grad():  # for whatever comes after the first use
                shapes = self.subdivider.interpolate(self.expr_dirs)
            self.register_buffer("_expr_dirs_high", shapes, persistent=False)
        return self.get_buffer("_expr_dirs_high")

    @property
    def faces_high(self) -> Tensor:
        """Faces (4^n F, 3) of the subdivided mesh."""
        return self.subdivider.faces

    def identity_or_template(self, identity: Identity | None) -> Identity:
        """The identity in this body's dtype and device; None is the template's."""
        identity = identity or Identity.zeros(self.n_vertices)
        if identity.face_offset.shape[0] != self.n_vertices:
            raise ValueError(
                f"the identity's face_offset has {identity.face_offset.shape[0]} vertices, "
                f"the body has {self.n_vertices}"
            )
        return identity.to(self.v_template.device, self.v_template.dtype)

    def shaped(
        self, identity: Identity | None, expr: Tensor | None = None, mask_root_offset: bool = True
    ) -> BodyOutput:
        """The unposed body with identity and expression (50,), and its rest joints (SPEC 7)."""
        from smplx.lbs import blend_shapes, vertices2joints  # late: importing smplx is slow

        who = self.identity_or_template(identity)
        template = self.v_template + who.face_offset
        coefficients = who.shape[: self.shape_dirs.shape[2]]
        vertices = template[None] + blend_shapes(coefficients[None], self.shape_dirs)
        if expr is not None:
            vertices = vertices + blend_shapes(expr.to(vertices)[None], self.expr_dirs)
        joint_offset = who.joint_offset
        if mask_root_offset:
            joint_offset = torch.cat([torch.zeros_like(joint_offset[:1]), joint_offset[1:]])
        joints = vertices2joints(self.joint_regressor, vertices) + joint_offset
        return BodyOutput(vertices[0], joints[0])

    def vertices(
        self, pose: SmplxPose | SmplxParams, identity: Identity | None, mask_root_offset: bool = True
    ) -> BodyOutput:
        """The full SMPL-X function: blend shapes, pose correctives and skinning, in the pose's space.

        Quirk: the model's mean hand pose is added to the given hand poses (SPEC 7).
        """
        from smplx.lbs import batch_rigid_transform

        rotation = self._rotations(pose)
        rest = self.shaped(identity, pose.expr, mask_root_offset)
        vertices = rest.vertices
        if self.pose_dirs.shape[0]:
            eye = torch.eye(3, dtype=rotation.dtype, device=rotation.device)
            vertices = vertices + ((rotation[1:] - eye).reshape(1, -1) @ self.pose_dirs).reshape(-1, 3)
        if gpu.is_on(rotation):
            from common.gpu.kinematics import rigid_transforms

            joints, transforms = rigid_transforms(rotation, rest.joints, self.parents)
        else:
            posed, chained = batch_rigid_transform(rotation[None], rest.joints[None], self.parents)
            joints, transforms = posed[0], chained[0]
        blended = (self.skinning_weights @ transforms[:, :3].reshape(N_JOINTS, 12)).reshape(-1, 3, 4)
        vertices = torch.einsum("vij,vj->vi", blended[:, :, :3], vertices) + blended[:, :, 3]
        trans = pose.trans.to(vertices)
        return BodyOutput(vertices + trans, joints + trans)

    def _rotations(self, pose: SmplxPose | SmplxParams) -> Tensor:
        """Rotation matrices (55, 3, 3) with the mean hand pose added as axis-angle."""
        from smplx.lbs import batch_rodrigues

        if isinstance(pose, SmplxParams):
            axis_angle = torch.cat([getattr(pose, name).reshape(-1, 3) for name in POSE_PARAMS])
            axis_angle = axis_angle.to(self.v_template)
            fingers = axis_angle[list(FINGER_JOINTS)] + self.hand_mean
            return batch_rodrigues(torch.cat([axis_angle[: LEFT_HAND[0]], fingers]))
        rotation = pose.rotation.to(self.v_template)
        fingers = rotmat_to_rotvec(rotation[LEFT_HAND[0] : RIGHT_HAND[-1] + 1]) + self.hand_mean
        return torch.cat([rotation[: LEFT_HAND[0]], batch_rodrigues(fingers)])

    def neutral_vertices(self, identity: Identity | None, jaw_open: bool) -> Tensor:
        """Vertices (V, 3) in the neutral pose, pose correctives included; None: no identity (SPEC 7)."""
        return self.vertices(neutral_pose_params(jaw_open), identity, mask_root_offset=False).vertices

    def neutral_pose_params(self, jaw_open: bool) -> SmplxParams:
        """The neutral pose on this body's device and dtype."""
        return neutral_pose_params(jaw_open).to(self.v_template.device, self.v_template.dtype)

    def zero_pose_joints(self, identity: Identity | None) -> Tensor:
        """Joints (55, 3) in the zero pose (fingers at the model's mean pose; root offset masked; SPEC 7)."""
        return self.vertices(SmplxParams.zeros(), identity).joints
