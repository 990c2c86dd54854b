"""Normals, neighbour lists and Laplacian against the published ones."""

from __future__ import annotations

import numpy as np
import pytest

from common.mesh import NeighbourLists, laplacian, neighbour_lists, vertex_normals
from tests.golden import scene

LEVELS = ("lr", "hr")


@pytest.mark.parametrize("level", LEVELS)
def test_vertex_normals(golden, level):
    arrays = golden("02_mesh_operators.npz")
    vertices, faces = scene.from_numpy(arrays[f"verts_{level}"]), scene.from_numpy(arrays[f"faces_{level}"])
    normals = vertex_normals(vertices, faces)
    np.testing.assert_allclose(normals, arrays[f"normals_{level}"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("level", LEVELS)
def test_laplacian_over_the_stored_lists(golden, level):
    arrays = golden("02_mesh_operators.npz")
    lists = NeighbourLists(
        scene.from_numpy(arrays[f"neighbor_idx_{level}"]),
        scene.from_numpy(arrays[f"neighbor_weight_{level}"]),
    )
    result = laplacian(scene.from_numpy(arrays[f"x_{level}"][0]), lists)
    np.testing.assert_allclose(result, arrays[f"laplacian_x_{level}"][0], atol=2e-5, rtol=0)
    if level == "hr":
        difference = result - laplacian(scene.from_numpy(arrays["y_hr"][0]), lists)
        np.testing.assert_allclose(result**2, arrays["lapreg_x_none_hr"][0], atol=2e-5, rtol=1e-5)
        np.testing.assert_allclose(difference**2, arrays["lapreg_x_y_hr"][0], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("level", LEVELS)
def test_own_neighbour_lists_equal_the_stored_sets_where_nothing_is_cut(golden, level):
    arrays = golden("02_mesh_operators.npz")
    lists = neighbour_lists(arrays[f"faces_{level}"], arrays[f"verts_{level}"].shape[0])
    stored_index, stored_weight = arrays[f"neighbor_idx_{level}"], arrays[f"neighbor_weight_{level}"]
    np.testing.assert_allclose(np.sort(lists.weight, 1), np.sort(stored_weight, 1), rtol=1e-6)
    full = np.append(arrays["degree_lr"], np.zeros(len(stored_index) - len(arrays["degree_lr"]))) > 10
    np.testing.assert_array_equal(np.sort(lists.index, 1)[~full], np.sort(stored_index, 1)[~full])
