"""Surface meshes are read back by an independent reader."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from common.export.surface import write_mesh_ply, write_obj
from common.gaussians import Gaussians
from tests.meshes import sphere


@pytest.mark.parametrize(("write", "suffix"), [(write_mesh_ply, ".ply"), (write_obj, ".obj")])
def test_surface_comes_back_with_its_colours(tmp_path, write, suffix):
    vertices, faces = sphere(2)
    generator = torch.Generator().manual_seed(0)
    mean = torch.from_numpy(vertices).float()
    rgb = torch.rand(len(mean), 3, generator=generator)
    write(tmp_path / f"a{suffix}", Gaussians(mean, torch.ones(len(mean), 1), rgb), torch.from_numpy(faces))
    mesh = trimesh.load(tmp_path / f"a{suffix}", process=False)
    np.testing.assert_array_equal(mesh.faces, faces)
    np.testing.assert_allclose(mesh.vertices, mean.numpy(), atol=1e-6)
    colors = np.asarray(mesh.visual.vertex_colors)[:, :3]
    assert np.abs(colors - rgb.numpy() * 255).max() <= 1.01
    assert mesh.is_watertight and mesh.volume > 0  # faces still look outwards
