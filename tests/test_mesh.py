"""Mesh operators against slow twins, known shapes and symmetries."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from common.mesh import (
    NeighbourLists,
    Subdivider,
    _sort,
    boundary_loops,
    fan,
    grow_rings,
    laplacian,
    neighbour_lists,
    subdivide,
    vertex_normals,
)
from tests.meshes import grid, icosahedron, sphere, wheel

MESHES = {"sphere": sphere(1), "grid": grid(4, 6), "wheel": (np.zeros((15, 3)), wheel(14))}


def slow_edges(faces):
    pairs = {tuple(sorted((int(f[i]), int(f[(i + 1) % 3])))) for f in faces for i in range(3)}
    return sorted(pairs)


def slow_neighbours(faces, n_vertices):
    neighbours = [set() for _ in range(n_vertices)]
    for a, b in slow_edges(faces):
        neighbours[a].add(b)
        neighbours[b].add(a)
    return [sorted(n) for n in neighbours]


def dense(lists):
    """The Laplacian as a matrix."""
    n = lists.index.shape[0]
    matrix = torch.eye(n, dtype=torch.float64)
    for i in range(n):
        for j, w in zip(lists.index[i].tolist(), lists.weight[i].tolist(), strict=True):
            matrix[i, j] += w
    return matrix


@pytest.mark.parametrize("name", MESHES)
def test_subdivision_equals_the_slow_twin(name):
    vertices, faces = MESHES[name]
    n = len(vertices)
    level = subdivide(faces, n)
    edges = slow_edges(faces)
    assert [tuple(e) for e in level.edges.tolist()] == edges
    midpoint = {edge: n + i for i, edge in enumerate(edges)}
    blocks = [[], [], [], []]
    for face in faces.tolist():
        a, b, c = face
        ab, bc, ca = (midpoint[tuple(sorted(pair))] for pair in ((a, b), (b, c), (c, a)))
        for block, triangle in zip(
            blocks, ((a, ab, ca), (b, bc, ab), (c, ca, bc), (bc, ca, ab)), strict=True
        ):
            block.append(triangle)
    assert level.faces.tolist() == [list(t) for block in blocks for t in block]
    assert level.n_vertices == n + len(edges)


def test_subdivision_keeps_the_area_and_an_affine_map_commutes_with_it():
    vertices, faces = icosahedron()
    subdivider = Subdivider(faces, len(vertices), 2)
    matrix = torch.randn(3, 3, dtype=torch.float64)
    coarse = torch.from_numpy(vertices)
    fine = subdivider.interpolate(coarse)
    torch.testing.assert_close(subdivider.interpolate(coarse @ matrix + 1), fine @ matrix + 1)

    def area(v, f):
        a, b, c = v[f].unbind(1)
        return torch.linalg.cross(b - a, c - a).norm(dim=1).sum() / 2

    torch.testing.assert_close(area(fine, subdivider.faces), area(coarse, torch.from_numpy(faces)))


def test_each_level_of_subdivision_extends_the_one_before():
    _, faces = grid(3, 4)
    features = torch.randn(12, 2, 5)
    by_level = [Subdivider(faces, 12, levels).interpolate(features) for levels in (0, 1, 2)]
    torch.testing.assert_close(by_level[0], features)
    for coarse, fine in pairwise(by_level):
        torch.testing.assert_close(fine[: len(coarse)], coarse, rtol=0, atol=0)


def test_a_flag_survives_subdivision_only_between_flagged_vertices():
    vertices, faces = sphere(1)
    flag = torch.from_numpy(vertices[:, 2] > 0.1)
    level = Subdivider(faces, len(vertices), 1)
    expected = flag.tolist() + [bool(flag[a] and flag[b]) for a, b in slow_edges(faces)]
    assert level.interpolate_flag(flag).tolist() == expected


def test_bad_input_to_subdivision_is_named():
    with pytest.raises(ValueError, match="expected \\(F, 3\\)"):
        subdivide(np.zeros((2, 4), int), 4)
    with pytest.raises(ValueError, match="0 or more"):
        Subdivider(grid(2, 2)[1], 4, -1)
    with pytest.raises(ValueError, match="expected 4"):
        Subdivider(grid(2, 2)[1], 4, 1).interpolate(torch.zeros(5, 3))


def test_normals_of_a_fine_sphere_point_outwards():
    vertices, faces = sphere(3)
    normals = vertex_normals(torch.from_numpy(vertices), torch.from_numpy(faces))
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(len(vertices), dtype=torch.float64))
    assert (normals * torch.from_numpy(vertices)).sum(1).min() > 0.999


def test_normals_of_a_flat_sheet_are_its_normal_and_turn_with_it():
    vertices, faces = (torch.from_numpy(a) for a in grid(3, 5))
    normals = vertex_normals(vertices, faces)
    torch.testing.assert_close(normals, torch.tensor([0.0, 0, 1], dtype=torch.float64).expand(15, 3))
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    rotation = rotation * torch.linalg.det(rotation)
    turned = vertex_normals(vertices @ rotation.T, faces)
    torch.testing.assert_close(turned, normals @ rotation.T)


def test_normals_weight_faces_by_area():
    vertices = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 1]], dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    expected = torch.tensor([2.0, 0, 4], dtype=torch.float64)  # twice the area times each normal
    torch.testing.assert_close(vertex_normals(vertices, faces)[0], expected / expected.norm())


def test_normals_of_a_batch_are_those_of_its_members():
    vertices, faces = (torch.from_numpy(a) for a in sphere(1))
    batch = vertices + 0.1 * torch.randn(2, 3, *vertices.shape, dtype=torch.float64)
    normals = vertex_normals(batch, faces)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(normals[i, j], vertex_normals(batch[i, j], faces))


def test_normals_have_exact_gradients():
    vertices, faces = (torch.from_numpy(a) for a in icosahedron())
    vertices = (vertices + 0.1 * torch.randn(12, 3, dtype=torch.float64)).requires_grad_()
    assert gradcheck(lambda v: vertex_normals(v, faces), (vertices,))


@pytest.mark.parametrize("cap", [3, 10])
@pytest.mark.parametrize("name", MESHES)
def test_neighbour_lists_equal_the_slow_twin(name, cap):
    vertices, faces = MESHES[name]
    lists = neighbour_lists(faces, len(vertices), cap)
    for i, neighbours in enumerate(slow_neighbours(faces, len(vertices))):
        kept = neighbours[:cap]
        n_padding = cap - len(kept)
        assert lists.index[i].tolist() == kept + [i] * n_padding
        assert lists.weight[i].tolist() == pytest.approx([-1 / len(kept)] * len(kept) + [0] * n_padding)


def test_vertices_without_faces_have_no_neighbours():
    lists = neighbour_lists(np.array([[0, 1, 2]]), 4)
    assert lists.index[3].tolist() == [3] * 10
    x = torch.randn(4, 2)
    torch.testing.assert_close(laplacian(x, lists)[3], x[3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MESHES)
def test_laplacian_and_its_gradient_equal_the_dense_matrix(name, dtype):
    vertices, faces = MESHES[name]
    lists = neighbour_lists(faces, len(vertices))
    matrix = dense(lists).to(dtype)
    x = torch.randn(len(vertices), 3, dtype=dtype, requires_grad=True)
    weight = torch.randn_like(x)
    result = laplacian(x, lists)
    (result * weight).sum().backward()
    torch.testing.assert_close(result.detach(), matrix @ x.detach(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(x.grad, matrix.T @ weight, atol=1e-6, rtol=1e-5)


def test_laplacian_has_exact_gradients_over_cut_lists():
    lists = neighbour_lists(wheel(14), 15, cap=4).double()
    x = torch.randn(15, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda v: laplacian(v, lists), (x,))


def test_laplacian_of_a_constant_is_zero_and_of_flat_sheets_inside_too():
    vertices, faces = grid(5, 5)
    lists = neighbour_lists(faces, 25).double()
    constant = laplacian(torch.full((25, 1), 7.0, dtype=torch.float64), lists)
    assert constant.abs().max() < 1e-6
    inside = laplacian(torch.from_numpy(vertices), lists).reshape(5, 5, 3)[1:-1, 1:-1]
    assert inside.abs().max() < 1e-6


def test_laplacian_follows_a_renumbering_of_the_vertices():
    vertices, faces = sphere(1)
    order = np.random.default_rng(0).permutation(len(vertices))  # new id of each vertex
    x = torch.randn(len(vertices), 3)
    renumbered = torch.empty_like(x)
    renumbered[order] = x
    lists, other = neighbour_lists(faces, len(vertices)), neighbour_lists(order[faces], len(vertices))
    torch.testing.assert_close(laplacian(renumbered, other)[order], laplacian(x, lists))


def test_laplacian_names_a_wrong_number_of_vertices():
    lists = neighbour_lists(grid(2, 2)[1], 4)
    with pytest.raises(ValueError, match="expected \\(4, C\\)"):
        laplacian(torch.zeros(5, 3), lists)
    with pytest.raises(ValueError, match="one \\(V, K\\)"):
        NeighbourLists(torch.zeros(4, 3, dtype=torch.long), torch.zeros(4, 2))


@pytest.mark.parametrize("n_rings", [0, 1, 2, 3])
def test_rings_are_steps_along_edges(n_rings):
    vertices, faces = sphere(2)
    neighbours = slow_neighbours(faces, len(vertices))
    reached = {5, 40}
    for _ in range(n_rings):
        reached |= {j for i in reached for j in neighbours[i]}
    mask = torch.zeros(len(vertices), dtype=torch.bool)
    mask[[5, 40]] = True
    grown = grow_rings(mask, neighbour_lists(faces, len(vertices)), n_rings)
    assert set(grown.nonzero().squeeze(1).tolist()) == reached
    assert mask.sum() == 2


def test_rings_follow_cut_lists_one_way():
    lists = neighbour_lists(wheel(14), 15)
    hub = torch.zeros(15, dtype=torch.bool).index_fill(0, torch.tensor([14]), True)
    assert grow_rings(hub, lists, 1).nonzero().squeeze(1).tolist() == [*range(10), 14]


def closed_without_overlap(faces):
    halves = [(int(f[i]), int(f[(i + 1) % 3])) for f in faces for i in range(3)]
    return len(set(halves)) == len(halves) and {(b, a) for a, b in halves} == set(halves)


def test_a_closed_mesh_has_no_boundary():
    assert boundary_loops(sphere(1)[1]) == []
    assert boundary_loops(np.zeros((0, 3), int)) == []


def test_holes_are_found_and_a_fan_closes_them():
    _, faces = sphere(2)
    in_a_hole = np.isin(faces, [20]).any(1) | np.isin(faces, [75]).any(1)
    opened = torch.from_numpy(faces[~in_a_hole])
    loops = boundary_loops(opened)
    expected = [set(faces[np.isin(faces, [v]).any(1)].reshape(-1)) - {v} for v in (20, 75)]
    assert sorted(map(sorted, loops)) == sorted(map(sorted, expected))
    closed = torch.cat([opened, *(fan(loop) for loop in loops)])
    assert closed_without_overlap(closed)


def test_a_sheet_has_its_rim_as_boundary_in_the_direction_of_its_faces():
    (loop,) = boundary_loops(grid(3, 3)[1])
    start = loop.tolist().index(0)
    assert loop.roll(-start).tolist() == [0, 1, 2, 5, 8, 7, 6, 3]


def test_loops_that_touch_in_a_vertex_are_told_apart():
    faces = np.array([[0, 1, 2], [2, 3, 4]])
    loops = boundary_loops(faces)
    assert sorted(sorted(loop.tolist()) for loop in loops) == [[0, 1, 2], [2, 3, 4]]


def test_module_forms_follow_dtype_and_are_not_saved():
    lists = neighbour_lists(grid(3, 3)[1], 9)
    subdivider = Subdivider(grid(3, 3)[1], 9, 1)
    assert not lists.state_dict() and not subdivider.state_dict()
    assert lists.double().weight.dtype == torch.float64
    assert subdivider.double().faces.dtype == torch.int64


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_midpoints_are_the_same_where_gradients_are_asked_for(shape):
    subdivider = Subdivider(sphere(1)[1], 42, 2)
    features = torch.randn(42, *shape)
    asked = subdivider.interpolate(features.clone().requires_grad_())
    assert asked.requires_grad
    assert torch.equal(asked.detach(), subdivider.interpolate(features))


@pytest.mark.parametrize("n_keys", [50, 2**62])
def test_sorting_keeps_the_order_of_equal_numbers_however_large_they_may_be(n_keys):
    key = np.random.default_rng(0).integers(0, 50, 300) + n_keys - 50
    ordered, order = _sort(key, n_keys)
    np.testing.assert_array_equal(order, np.argsort(key, kind="stable"))
    np.testing.assert_array_equal(ordered, key[order])
