"""Subdivision against the published order of vertices, edges and faces."""

from __future__ import annotations

import numpy as np
import pytest

from common.mesh import Subdivider, subdivide
from tests.golden import scene


def test_edges_and_faces_have_the_published_order(golden):
    arrays = golden("01_subdivision.npz")
    faces, n_vertices = arrays["faces_lr"], arrays["verts_lr"].shape[0]
    for edges_name, faces_name in (("edges_lr", "faces_l1"), ("edges_l1", "faces_hr")):
        level = subdivide(faces, n_vertices)
        np.testing.assert_array_equal(level.edges, arrays[edges_name])
        np.testing.assert_array_equal(level.faces, arrays[faces_name])
        faces, n_vertices = level.faces, level.n_vertices
    assert n_vertices == int(arrays["vertex_num_hr"])


@pytest.mark.parametrize("feature", ["verts", "feat"])
@pytest.mark.parametrize(("n_levels", "level"), [(0, "lr"), (1, "l1"), (2, "hr")])
def test_features_are_interpolated_as_published(golden, n_levels, level, feature):
    arrays = golden("01_subdivision.npz")
    subdivider = Subdivider(arrays["faces_lr"], arrays["verts_lr"].shape[0], n_levels)
    np.testing.assert_array_equal(subdivider.faces, arrays[f"faces_{level}"])
    fine = subdivider.interpolate(scene.from_numpy(arrays[f"{feature}_lr"]))
    np.testing.assert_allclose(fine, arrays[f"{feature}_{level}"], atol=2e-5, rtol=0)


def test_flags_are_interpolated_as_published(golden):
    arrays = golden("01_subdivision.npz")
    subdivider = Subdivider(arrays["faces_lr"], arrays["verts_lr"].shape[0], 2)
    flag = scene.from_numpy(arrays["flag_lr"])
    np.testing.assert_array_equal(subdivider.interpolate(flag), arrays["flag_hr"])
    np.testing.assert_array_equal(subdivider.interpolate_flag(flag), arrays["flag_hr"] == 1)
