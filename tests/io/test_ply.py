"""Meshes are read back by an independent reader."""

from __future__ import annotations

import numpy as np
import pytest

from common.io.ply import write_mesh

plyfile = pytest.importorskip("plyfile")


def _mesh(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    vertices = rng.normal(size=(37, 3)).astype(np.float32)
    faces = rng.integers(0, 37, size=(50, 3))
    colors = rng.integers(0, 256, size=(37, 3)).astype(np.uint8)
    return vertices, faces, colors


@pytest.mark.parametrize("is_colored", [False, True])
def test_vertices_faces_and_colours_come_back_exactly(tmp_path, is_colored):
    vertices, faces, colors = _mesh(np.random.default_rng(0))
    path = tmp_path / "mesh.ply"
    write_mesh(path, vertices, faces, colors if is_colored else None)
    content = plyfile.PlyData.read(str(path))
    found = np.stack([content["vertex"][axis] for axis in "xyz"], axis=-1)
    np.testing.assert_array_equal(found, vertices)
    np.testing.assert_array_equal(np.stack(list(content["face"]["vertex_indices"])), faces)
    if is_colored:
        found = np.stack([content["vertex"][name] for name in ("red", "green", "blue")], axis=-1)
        np.testing.assert_array_equal(found, colors)


def test_wrong_shapes_are_refused_before_anything_is_written(tmp_path):
    vertices, faces, colors = _mesh(np.random.default_rng(0))
    with pytest.raises(ValueError, match="expected"):
        write_mesh(tmp_path / "mesh.ply", vertices[:, :2], faces)
    with pytest.raises(ValueError, match="expected"):
        write_mesh(tmp_path / "mesh.ply", vertices, faces, colors.astype(float))
    assert list(tmp_path.iterdir()) == []
