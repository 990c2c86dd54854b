"""A skin with its skeleton, texture, expression shapes and one motion as a .glb model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.export.glb import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, GlbBuffer
from common.export.skin import MIN_SHAPE_M, SkeletonPose, Skin
from common.export.uv_texture import UvMesh
from common.io.image import as_png
from common.joints import JOINTS, N_JOINTS, PARENTS
from common.mesh import vertex_normals

_LINEAR, _MIPMAPPED, _CLAMP = 9729, 9987, 33071


@dataclass(frozen=True)
class Clip:
    """A motion of the skeleton."""

    name: str
    poses: Sequence[SkeletonPose]
    fps: float


def write_glb(
    path: Path,
    name: str,
    skin: Skin,
    faces: Tensor,
    uv_mesh: UvMesh,
    texture: Tensor,
    pose: SkeletonPose,
    clip: Clip | None = None,
) -> None:
    """Write the skin with faces (F, 3), its UV mesh and texture (3, T, T), standing in `pose`, and the clip.

    The material is unlit (KHR_materials_unlit): the texture holds the avatar's final colours.
    """
    buffer = GlbBuffer()
    primitive = _primitive(buffer, skin, faces, uv_mesh)
    image = {"bufferView": buffer.add_bytes(as_png(texture)), "mimeType": "image/png", "name": "colour"}
    shape_names = [f"expression_{i}" for i in range(len(skin.shapes))]
    mesh: dict[str, Any] = {"name": name, "primitives": [primitive]}
    if shape_names:
        mesh |= {"weights": pose.expr.tolist(), "extras": {"targetNames": shape_names}}
    document = {
        "asset": {"version": "2.0", "generator": "animatable Gaussian avatar exporter"},
        "scene": 0,
        "scenes": [{"name": name, "nodes": [0, N_JOINTS]}],
        "nodes": [
            *_joint_nodes(skin, pose),
            {"name": name, "mesh": 0, "skin": 0},
        ],
        "meshes": [mesh],
        "skins": [
            {
                "name": "skeleton",
                "joints": list(range(N_JOINTS)),
                "skeleton": 0,
                "inverseBindMatrices": buffer.add_array(_matrices(skin.inverse_bind)),
            }
        ],
        "materials": [_MATERIAL],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"magFilter": _LINEAR, "minFilter": _MIPMAPPED, "wrapS": _CLAMP, "wrapT": _CLAMP}],
        "images": [image],
        "extensionsUsed": ["KHR_materials_unlit"],
    }
    if clip is not None:
        document["animations"] = [_animation(buffer, clip, has_shapes=bool(shape_names))]
    buffer.write(path, document)


_MATERIAL = {
    "name": "avatar",
    "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 1.0},
    "doubleSided": True,
    "extensions": {"KHR_materials_unlit": {}},
}


def _primitive(buffer: GlbBuffer, skin: Skin, faces: Tensor, uv_mesh: UvMesh) -> dict[str, Any]:
    """Geometry, weights and expression shapes, vertices at UV seams repeated."""
    vertex = uv_mesh.vertex
    normals = _unit_normals(skin.vertices, faces)
    attributes = {
        "POSITION": buffer.add_array(_floats(skin.vertices[vertex]), ARRAY_BUFFER, with_bounds=True),
        "NORMAL": buffer.add_array(_floats(normals[vertex]), ARRAY_BUFFER),
        "TEXCOORD_0": buffer.add_array(_floats(uv_mesh.uv), ARRAY_BUFFER),
    }
    for i in range(skin.joint_index.shape[1] // 4):
        columns = slice(4 * i, 4 * i + 4)
        index = skin.joint_index[vertex, columns].cpu().numpy().astype(np.uint8)
        attributes[f"JOINTS_{i}"] = buffer.add_array(index, ARRAY_BUFFER)
        weight = _floats(skin.joint_weight[vertex, columns])
        attributes[f"WEIGHTS_{i}"] = buffer.add_array(weight, ARRAY_BUFFER)
    indices = uv_mesh.faces.reshape(-1).cpu().numpy().astype(np.uint32)
    primitive: dict[str, Any] = {
        "attributes": attributes,
        "indices": buffer.add_array(indices, ELEMENT_ARRAY_BUFFER),
        "material": 0,
    }
    if len(skin.shapes):
        primitive["targets"] = [{"POSITION": _shape(buffer, shape[vertex])} for shape in skin.shapes]
    return primitive


def _unit_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Vertex normals (N, 3) of unit length, also where faces are tiny; up where there is no surface."""
    normals = F.normalize(vertex_normals(vertices.double(), faces), dim=1, eps=1e-30)
    up = torch.tensor([0.0, 1.0, 0.0]).to(normals)
    return torch.where(normals.norm(dim=1, keepdim=True) > 0.5, normals, up)


def _shape(buffer: GlbBuffer, displacement: Tensor) -> int:
    moved = (displacement.norm(dim=1) >= MIN_SHAPE_M).nonzero().squeeze(1)
    return buffer.add_sparse(_floats(displacement[moved]), len(displacement), moved.cpu().numpy())


def _joint_nodes(skin: Skin, pose: SkeletonPose) -> list[dict[str, Any]]:
    """A node a joint in joint order, each placed relative to its parent."""
    import roma  # late: importing it is slow

    parents = torch.tensor(PARENTS)
    offset = skin.rest_joints - skin.rest_joints[parents.clamp(min=0)]
    offset = torch.cat([pose.root_translation[None], offset[1:]])
    quaternions = roma.rotmat_to_unitquat(pose.rotation)
    nodes: list[dict[str, Any]] = []
    for i, joint in enumerate(JOINTS):
        node = {"name": joint, "translation": offset[i].tolist(), "rotation": quaternions[i].tolist()}
        children = [child for child, parent in enumerate(PARENTS) if parent == i]
        nodes.append(node | ({"children": children} if children else {}))
    return nodes


def _animation(buffer: GlbBuffer, clip: Clip, has_shapes: bool) -> dict[str, Any]:
    """Rotations of all joints, translation of the root, and weights of the expression shapes, a key a frame."""
    import roma

    times = np.arange(len(clip.poses)) / clip.fps
    time = buffer.add_array(times.astype(np.float32), with_bounds=True)
    samplers: list[dict[str, Any]] = []
    channels: list[dict[str, Any]] = []

    def add(values: Tensor, node: int, path: str) -> None:
        samplers.append({"input": time, "output": buffer.add_array(_floats(values))})
        channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": path}})

    rotation = _continuous(roma.rotmat_to_unitquat(torch.stack([pose.rotation for pose in clip.poses])))
    for joint in range(N_JOINTS):
        add(rotation[:, joint], joint, "rotation")
    add(torch.stack([pose.root_translation for pose in clip.poses]), 0, "translation")
    if has_shapes:
        add(torch.stack([pose.expr for pose in clip.poses]).reshape(-1), N_JOINTS, "weights")
    return {"name": clip.name, "samplers": samplers, "channels": channels}


def _continuous(quaternions: Tensor) -> Tensor:
    """Quaternions (T, J, 4) with signs such that neighbours in time never point apart."""
    products = (quaternions[1:] * quaternions[:-1]).sum(-1, keepdim=True)
    flips = torch.where(products < 0, -1.0, 1.0).cumprod(0)
    return torch.cat([quaternions[:1], quaternions[1:] * flips])


def _matrices(matrices: Tensor) -> np.ndarray:
    """Matrices (N, 4, 4) column by column (N, 16)."""
    return _floats(matrices.transpose(1, 2).reshape(-1, 16))


def _floats(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().astype(np.float32)
