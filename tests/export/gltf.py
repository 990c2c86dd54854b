"""An independent reading of .glb files with pygltflib: arrays, joint transforms and skinned vertices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pygltflib
from scipy.spatial.transform import Rotation

DTYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Model:
    """A model of one skinned mesh."""

    def __init__(self, path: Path) -> None:
        self.gltf = pygltflib.GLTF2().load(str(path))
        self.blob = self.gltf.binary_blob()
        self.primitive = self.gltf.meshes[0].primitives[0]
        self.skin = self.gltf.skins[0]

    def view(self, index: int) -> bytes:
        view = self.gltf.bufferViews[index]
        return self.blob[view.byteOffset : view.byteOffset + view.byteLength]

    def array(self, index: int) -> np.ndarray:
        """An accessor's values (N, C)."""
        accessor = self.gltf.accessors[index]
        width, dtype = WIDTHS[accessor.type], DTYPES[accessor.componentType]
        values = np.zeros((accessor.count, width), dtype)
        if accessor.bufferView is not None:
            values = np.frombuffer(self.view(accessor.bufferView), dtype).reshape(-1, width)
        if accessor.sparse is not None:
            rows = np.frombuffer(self.view(accessor.sparse.indices.bufferView), np.uint32)
            values[rows] = np.frombuffer(self.view(accessor.sparse.values.bufferView), dtype).reshape(
                -1, width
            )
        assert len(values) == accessor.count
        return values

    def attribute(self, name: str) -> np.ndarray:
        return self.array(getattr(self.primitive.attributes, name))

    @property
    def faces(self) -> np.ndarray:
        return self.array(self.primitive.indices).reshape(-1, 3).astype(np.int64)

    @property
    def weights(self) -> np.ndarray:
        """Dense weights (N, 55)."""
        n_sets = 2 if getattr(self.primitive.attributes, "WEIGHTS_1", None) is not None else 1
        index = np.concatenate([self.attribute(f"JOINTS_{i}") for i in range(n_sets)], axis=1).astype(int)
        weight = np.concatenate([self.attribute(f"WEIGHTS_{i}") for i in range(n_sets)], axis=1)
        dense = np.zeros((len(index), len(self.skin.joints)))
        for column in range(index.shape[1]):
            np.add.at(dense, (np.arange(len(index)), index[:, column]), weight[:, column])
        return dense

    def channels(self, key: int) -> dict[tuple[int, str], np.ndarray]:
        """(node, path) -> value of the animation's key."""
        values = {}
        animation = self.gltf.animations[0]
        for channel in animation.channels:
            sampler = animation.samplers[channel.sampler]
            n_keys = self.gltf.accessors[sampler.input].count
            output = self.array(sampler.output).reshape(n_keys, -1)
            values[(channel.target.node, channel.target.path)] = output[key]
        return values

    def times(self) -> np.ndarray:
        return self.array(self.gltf.animations[0].samplers[0].input)[:, 0]

    def vertices(self, key: int | None = None) -> np.ndarray:
        """Skinned vertices (N, 3) at a key of the animation, or as the nodes stand (glTF 2.0, 3.7.3.3)."""
        changed = {} if key is None else self.channels(key)
        mesh_node = next(i for i, node in enumerate(self.gltf.nodes) if node.mesh is not None)
        shape_weights = changed.get((mesh_node, "weights"), self.gltf.meshes[0].weights or [])
        bind = self.attribute("POSITION").astype(float)
        for target, weight in zip(self.primitive.targets or [], shape_weights, strict=True):
            bind = bind + weight * self.array(target["POSITION"])
        inverse_bind = self.array(self.skin.inverseBindMatrices).reshape(-1, 4, 4).transpose(0, 2, 1)
        world = self._world(changed)
        matrices = np.stack(
            [world[joint] @ m for joint, m in zip(self.skin.joints, inverse_bind, strict=True)]
        )
        blended = np.einsum("nj,jab->nab", self.weights, matrices)
        return np.einsum("nab,nb->na", blended, np.pad(bind, ((0, 0), (0, 1)), constant_values=1))[:, :3]

    def _world(self, changed: dict[tuple[int, str], np.ndarray]) -> dict[int, np.ndarray]:
        world: dict[int, np.ndarray] = {}

        def visit(index: int, parent: np.ndarray) -> None:
            node = self.gltf.nodes[index]
            local = np.eye(4)
            rotation = changed.get((index, "rotation"), node.rotation or [0, 0, 0, 1])
            local[:3, :3] = Rotation.from_quat(rotation).as_matrix()
            local[:3, 3] = changed.get((index, "translation"), node.translation or [0, 0, 0])
            world[index] = parent @ local
            for child in node.children or []:
                visit(child, world[index])

        for root in self.gltf.scenes[self.gltf.scene].nodes:
            visit(root, np.eye(4))
        return world
