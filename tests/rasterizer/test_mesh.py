"""The mesh rasterizers of CPU and GPU against known triangles and a loop over pixels and faces."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from common.camera import Camera
from common.rasterizer import MeshFragments, interpolate_mesh, rasterize_mesh
from common.rasterizer.mesh import NEAR_M

Draw = Callable[[Tensor, Tensor, Camera], MeshFragments]
CAMERA = Camera(
    R=torch.eye(3),
    t=torch.zeros(3),
    focal=torch.tensor([30.0, 34.0]),
    princpt=torch.tensor([14.0, 9.5]),
    height=21,
    width=26,
)


@pytest.fixture(params=["numba", "triton"])
def draw(request: pytest.FixtureRequest) -> Draw:
    """`rasterize_mesh`, and the same of the GPU's kernels."""
    if request.param == "numba":
        return rasterize_mesh
    device = request.getfixturevalue("triton_device")
    from common.gpu.triangles import draw_attributes

    def draw_by_kernels(vertices: Tensor, faces: Tensor, camera: Camera) -> MeshFragments:
        """They give attributes alone: of corners that no two triangles share, which triangle, which corner, depth."""
        n, corners = len(faces), vertices[faces].flatten(0, 1)
        number = torch.arange(1, n + 1).repeat_interleave(3)[:, None]
        attributes = torch.cat([number, torch.eye(3).repeat(n, 1), corners[:, 2:]], 1).float()
        own = torch.arange(3 * n).view(n, 3)
        corners, own, attributes = (tensor.to(device) for tensor in (corners, own, attributes))
        image = draw_attributes(corners, own, camera.to(device), attributes, NEAR_M).cpu()
        return MeshFragments(image[0].round().long() - 1, image[1:4].permute(1, 2, 0), image[4], faces)

    return draw_by_kernels


def _random_mesh(seed: int, n_vertices: int = 40, n_faces: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.randn(n_vertices, 3, generator=generator, dtype=torch.float64)
    vertices[:, 2] = 1.5 + vertices[:, 2].abs() - 1.6 * (torch.arange(n_vertices) % 13 == 0)
    faces = torch.stack([torch.randperm(n_vertices, generator=generator)[:3] for _ in range(n_faces)])
    return vertices, faces


def _loop(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rays through pixel centres met with each triangle's plane: index, barycentrics, depth."""
    index = np.full((CAMERA.height, CAMERA.width), -1)
    barycentric, depth = np.zeros((*index.shape, 3)), np.full(index.shape, np.inf)
    (fx, fy), (cx, cy) = CAMERA.focal.tolist(), CAMERA.princpt.tolist()
    for row in range(CAMERA.height):
        for column in range(CAMERA.width):
            ray = np.array([(column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy, 1.0])
            for f, face in enumerate(faces):
                corners = vertices[face]
                if corners[:, 2].min() <= 1e-3:
                    continue
                # sum_i b_i corner_i = z ray, sum_i b_i = 1
                system = np.block([[corners.T, -ray[:, None]], [np.ones((1, 3)), np.zeros((1, 1))]])
                *b, z = np.linalg.solve(system, np.array([0.0, 0.0, 0.0, 1.0]))
                if min(b) >= 0 and z < depth[row, column]:
                    index[row, column], depth[row, column], barycentric[row, column] = f, z, b
    return index, barycentric, np.where(index >= 0, depth, 0.0)


@pytest.mark.parametrize("seed", [0, 1])
def test_fragments_equal_rays_met_with_triangles(draw: Draw, seed: int) -> None:
    vertices, faces = _random_mesh(seed)
    fragments = draw(vertices, faces, CAMERA)
    index, barycentric, depth = _loop(vertices.numpy(), faces.numpy())
    assert (index >= 0).any() and (index < 0).any()
    assert np.array_equal(fragments.face_index.numpy(), index)
    tolerance = 1e-10 if fragments.depth.dtype == torch.float64 else 1e-6
    assert np.allclose(fragments.barycentric.numpy(), barycentric, rtol=0, atol=tolerance)
    assert np.allclose(fragments.depth.numpy(), depth, rtol=0, atol=tolerance)


def test_triangle_covers_exactly_the_pixel_centres_inside_it(draw: Draw) -> None:
    camera = Camera.identity((1.0, 1.0), (0.0, 0.0), 4, 6)
    vertices = torch.tensor([[0.4, 0.4, 1.0], [4.6, 0.4, 1.0], [0.4, 2.6, 1.0]])
    covered = draw(vertices, torch.tensor([[0, 1, 2]]), camera).face_index == 0
    expected = torch.tensor(
        [[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0] * 6], dtype=torch.bool
    )
    assert torch.equal(covered, expected)


def test_barycentrics_are_perspective_correct(draw: Draw) -> None:
    vertices = torch.tensor([[-1.0, -1.0, 1.5], [2.0, -1.0, 4.0], [0.0, 2.0, 3.0]], dtype=torch.float64)
    fragments = draw(vertices, torch.tensor([[0, 1, 2]]), CAMERA)
    point = interpolate_mesh(fragments, vertices)
    covered = fragments.face_index >= 0
    row, column = torch.nonzero(covered, as_tuple=True)
    pixel = CAMERA.to(torch.float64).project(point[:, covered].T)
    assert covered.sum() > 50
    assert torch.allclose(pixel, torch.stack([column, row], -1).double() + 0.5, atol=1e-5)
    assert torch.allclose(point[2], fragments.depth.double())


def test_nearest_triangle_wins_whatever_the_order(draw: Draw) -> None:
    corners = torch.tensor([[-3.0, -3.0, 1.0], [3.0, -3.0, 1.0], [0.0, 3.0, 1.0]])
    vertices = torch.cat([corners * 2, corners * 3])
    for faces in ([[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]]):
        fragments = draw(vertices, torch.tensor(faces), CAMERA)
        near = faces.index([0, 1, 2])
        assert (fragments.face_index[fragments.face_index >= 0] == near).all()
        assert torch.allclose(fragments.depth[fragments.face_index >= 0], torch.tensor(2.0))


def test_of_equally_near_triangles_the_first_wins_and_those_without_area_are_not_drawn(draw: Draw) -> None:
    vertices = torch.tensor([[-3.0, -3.0, 2.0], [3.0, -3.0, 2.0], [0.0, 3.0, 2.0], [0.0, -3.0, 2.0]])
    line, point = [[0, 3, 1], [0, 0, 1]], [2, 2, 2]
    fragments = draw(vertices, torch.tensor([*line, point, [0, 1, 2], [0, 1, 2]]), CAMERA)
    assert (fragments.face_index >= 0).any()
    assert (fragments.face_index[fragments.face_index >= 0] == 3).all()


def test_a_triangle_that_reaches_over_all_borders_covers_every_pixel(draw: Draw) -> None:
    vertices = torch.tensor([[-90.0, -90.0, 2.0], [90.0, -90.0, 2.0], [0.0, 90.0, 2.0]])
    assert (draw(vertices, torch.tensor([[0, 1, 2]]), CAMERA).face_index == 0).all()


def test_back_faces_are_drawn(draw: Draw) -> None:
    vertices, _ = _random_mesh(3)
    face = torch.tensor([[1, 2, 3]])
    front = draw(vertices, face, CAMERA)
    back = draw(vertices, face.flip(1), CAMERA)
    assert torch.equal(front.face_index, back.face_index)
    assert torch.allclose(front.barycentric, back.barycentric.flip(-1))


def test_triangles_reaching_behind_the_camera_are_skipped(draw: Draw) -> None:
    vertices = torch.tensor([[-1.0, -1.0, 2.0], [1.0, -1.0, 2.0], [0.0, 1.0, -1.0]])
    assert (draw(vertices, torch.tensor([[0, 1, 2]]), CAMERA).face_index == -1).all()


def test_corner_attributes_equal_vertex_attributes_and_carry_gradients() -> None:
    vertices, faces = _random_mesh(4)
    fragments = rasterize_mesh(vertices, faces, CAMERA)
    attributes = torch.rand(len(vertices), 2, dtype=torch.float64, requires_grad=True)
    image = interpolate_mesh(fragments, attributes)
    assert image.shape == (2, CAMERA.height, CAMERA.width)
    assert torch.equal(image, interpolate_mesh(fragments, attributes[faces]))
    image[0].sum().backward()
    assert attributes.grad is not None
    assert attributes.grad[:, 0].sum().item() == pytest.approx((fragments.face_index >= 0).sum().item())
    assert attributes.grad[:, 1].abs().max() == 0


def test_empty_mesh_covers_nothing(draw: Draw) -> None:
    fragments = draw(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64), CAMERA)
    assert (fragments.face_index == -1).all()
    assert interpolate_mesh(fragments, torch.zeros(0, 2)).abs().max() == 0
