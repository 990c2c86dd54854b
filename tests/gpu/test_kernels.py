"""The GPU's kernels against the plain functions: on a GPU, or in Triton's interpreter (run by test_interpreted.py)."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton", reason="Triton is not installed")
HAS_GPU = torch.cuda.is_available()
if not HAS_GPU and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no CUDA device; test_interpreted.py runs these tests", allow_module_level=True)

from common.camera import Camera
from common.gpu import crop, first_layer, lookup, mesh, net, perceptual, ssim, triangles
from common.gpu.crop import Crop
from common.gpu.first_layer import FirstLayer
from common.gpu.perceptual import HalfLpips
from common.gpu.rooms import watched_rooms
from common.losses import gaussian_window, ssim_map
from common.mesh import laplacian, neighbour_lists, vertex_normals
from common.perceptual import TRUNKS, Lpips, random_lpips, unit_length
from common.perceptual_crop import Box
from common.rasterizer import interpolate_mesh, rasterize_mesh
from common.rasterizer.mesh import NEAR_M
from common.skinning_lookup import look_up_torch
from tests.meshes import icosahedron

DEVICE = torch.device("cuda" if HAS_GPU else "cpu")


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def on_device(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(tensor.to(DEVICE) for tensor in tensors)


def gradients(function, *inputs: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Value, and gradients of a fixed random sum of it to those inputs that are floating-point, on the CPU."""
    leaves = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    value = function(*leaves)
    weight = rand(*value.shape, seed=9).to(value)
    (value * weight).sum().backward()
    return value.detach().cpu(), [leaf.grad.cpu() for leaf in leaves if leaf.grad is not None]


def check(kernel, plain, *inputs: torch.Tensor, tolerance: float = 2e-5) -> None:
    found, found_gradients = gradients(kernel, *on_device(*inputs))
    expected, expected_gradients = gradients(
        plain, *[x.double() if x.is_floating_point() else x for x in inputs]
    )
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    assert len(found_gradients) == len(expected_gradients) > 0
    for a, b in zip(found_gradients, expected_gradients, strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max()


def test_lookups_inside_at_the_border_and_outside() -> None:
    size, n_joints = (5, 6, 7), 11
    table = rand(*size, n_joints)
    points = rand(37, 3, seed=1) * (torch.tensor(size) + 2) - 1.5
    steps = rand(37, 1, seed=2).expand(-1, 3) * torch.tensor([0.9, 0.4, 0.1])
    tables = {torch.float32: table.to(DEVICE), torch.float64: table.double()}

    def plain(x):
        return F.normalize(look_up_torch(tables[x.dtype], x, steps.to(x)), p=1.0, dim=1)

    check(lambda x: lookup.look_up_normalised(tables[x.dtype], x, steps.to(x)), plain, points)


def test_vertex_normals_with_a_vertex_of_no_face_and_a_tiny_face() -> None:
    vertices, faces = map(torch.as_tensor, icosahedron())
    n = len(vertices)
    tiny = torch.tensor([[0.0, 0.0, 0.0], [1e-4, 0.0, 0.0], [0.0, 1e-4, 0.0], [2.0, 2.0, 2.0]])
    vertices = torch.cat([vertices.float() + 0.1 * rand(*vertices.shape), tiny])
    around = torch.cat([faces.long(), torch.tensor([[n, n + 1, n + 2]])])
    there = around.to(DEVICE)
    check(lambda x: mesh.vertex_normals(x, there), lambda x: vertex_normals(x, around), vertices)


@pytest.mark.parametrize("width", [1, 3, 10])
def test_laplacian(width: int) -> None:
    vertices, faces = map(torch.as_tensor, icosahedron())
    lists = neighbour_lists(faces, len(vertices), cap=4)
    there = [
        t.to(DEVICE)
        for t in (lists.index, lists.weight, lists.back_index, lists.back_offset, lists.back_weight)
    ]
    check(lambda x: mesh.laplacian(x, *there), lambda x: laplacian(x, lists), rand(len(vertices), width))


def test_dissimilarity_of_images_smaller_and_larger_than_the_window() -> None:
    for height, width in ((7, 5), (19, 23)):
        x, y = rand(2, 3, height, width), rand(2, 3, height, width, seed=1)
        y[..., :4] = x[..., :4]

        def kernel(x, y=y):
            return ssim.dissimilarity(x, y.to(x), gaussian_window(11, 1.5, x), 1e-4, 9e-4)

        check(kernel, lambda x, y=y: 1 - ssim_map(x, y.to(x)), x, tolerance=1e-4)


def test_planes_sampled_at_fixed_points() -> None:
    points, planes = rand(45, 3) * 2.4 - 1.2, rand(3, 8, 6, 6, seed=1)

    def plain(planes):
        at = points.to(planes)
        grid = torch.stack([at[:, [0, 1]], at[:, [0, 2]], at[:, [1, 2]]])[:, :, None]
        features = F.grid_sample(planes, grid, mode="bilinear", align_corners=False)
        return features.squeeze(3).permute(2, 0, 1).reshape(len(points), -1)

    corners = net.plane_corners(points.to(DEVICE), 6)
    check(lambda planes: net.sample_planes(planes, corners), plain, planes)


def test_group_norm_and_relu() -> None:
    x, weight, bias = rand(41, 16) * 3, rand(16, seed=1) + 0.5, rand(16, seed=2) - 0.5
    check(
        lambda x, weight, bias: net.group_norm_relu(x, weight, bias, 4, 1e-5),
        lambda x, weight, bias: F.relu(F.group_norm(x, 4, weight, bias, 1e-5)),
        x, weight, bias,
    )  # fmt: skip


def test_picked_rows() -> None:
    index = torch.tensor([2, 0, 2, 2, 1])
    check(lambda table: net.PickRows.apply(table, index.to(DEVICE)), lambda table: table[index], rand(4, 3))


def test_triangles_equal_the_cpu_s() -> None:
    vertices, faces = map(torch.as_tensor, icosahedron())
    faces = faces.long()
    vertices = vertices.float() * 0.7 + torch.tensor([0.1, -0.2, 2.0])
    behind = torch.tensor([[0.0, 0.0, -1.0], [3.0, 3.0, 2.5], [-3.0, 3.0, 2.5], [0.0, -3.0, 2.2]])
    faces = torch.cat([faces, torch.tensor([[12, 13, 14], [13, 14, 15], [3, 3, 4]])])
    vertices = torch.cat([vertices, behind])
    attributes = rand(len(vertices), 2)
    camera = Camera.identity((30.0, 33.0), (15.2, 11.1), 24, 31)
    expected = interpolate_mesh(rasterize_mesh(vertices, faces, camera), attributes)
    moved = camera.to(DEVICE)
    found = triangles.draw_attributes(*on_device(vertices, faces), moved, attributes.to(DEVICE), NEAR_M)
    assert (found.cpu() - expected).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("dtype", "tolerance", "gradient_tolerance"),
    [(torch.float32, 2e-4, 0.05), (torch.bfloat16, 2e-3, 0.25), (torch.float16, 2e-3, 0.15)],
)
def test_perceptual_distance_and_its_gradient(
    dtype: torch.dtype, tolerance: float, gradient_tolerance: float
) -> None:
    """In 16 bits the distance is within 0.2 %, the gradient within 25 % (bf16) or 15 % (float16) of its length.

    ReLUs near 0 change sides.
    """
    exact, (height, width) = random_lpips("vgg"), (16, 18)
    x, y = rand(3, 3, height, width), rand(2, 3, height, width, seed=1)
    target = [1, 0, 1]
    expected, (expected_gradient,) = gradients(lambda x: exact(x, y[target].to(x)), x)
    for at_once, n_remembered in ((2, 0), (5, 0), (5, 1)):
        half = HalfLpips(exact.to(DEVICE), at_once, dtype)
        y = y.to(DEVICE)
        half.remember(list(y[:n_remembered]))
        with torch.backends.cudnn.flags(allow_tf32=False):
            found, (gradient,) = gradients(
                lambda x, half=half, y=y: half(x, list(y.to(x)), target), x.to(DEVICE)
            )
        assert (found - expected).abs().max() <= tolerance * expected.abs().min()
        assert (gradient - expected_gradient).norm() <= gradient_tolerance * expected_gradient.norm()
    with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        alone = half(x.to(DEVICE), list(y), target).cpu()
    assert (alone - found).abs().max() <= 1e-6 * found.abs().max()


def channels_last(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What a ReLU may give: many zeros, and equal numbers."""
    values = ((rand(*shape, seed=seed) - 0.5).clamp_min(0.0) * 8).round() / 8
    return values.to(DEVICE, dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", [(2, 16, 5, 7), (1, 64, 4, 6)])
def test_pooling_takes_the_largest_and_leaves_the_last_of_odd_sides(shape: tuple[int, ...]) -> None:
    x = channels_last(*shape, dtype=torch.bfloat16)
    assert torch.equal(perceptual._pooled(x), F.max_pool2d(x.float(), 2).to(x.dtype))


@pytest.mark.parametrize("size", [(3, 5), (1, 1)])
def test_masks_do_not_ask_for_strides_of_single_pixels(size: tuple[int, int]) -> None:
    x, grad = channels_last(2, 16, *size), channels_last(2, 16, *size, seed=1) - 0.25
    if size == (1, 1):
        grad = grad.as_strided(grad.shape, (16, 1, 1, 1))
    expected = torch.where(x > 0, grad, 0.0)
    assert torch.equal(perceptual._masked(grad, x), expected)


@pytest.mark.parametrize(
    ("size", "is_pooled"), [((6, 8), True), ((5, 7), True), ((5, 7), False), ((1, 1), False)]
)
def test_features_compared_in_one_pass(size: tuple[int, int], is_pooled: bool) -> None:
    """The distances, and their gradient with that through the pooling, of images with a target each."""
    a, b, head = channels_last(3, 16, *size), channels_last(2, 16, *size, seed=1), rand(16, seed=2)
    d_pooled = channels_last(3, 16, size[0] // 2, size[1] // 2, seed=3) if is_pooled else None
    which, places = torch.tensor([1, 0, 1], dtype=torch.int32), torch.tensor([0, 3, 2], dtype=torch.int32)

    def plain(a: torch.Tensor) -> torch.Tensor:
        unit, other = (unit_length(x.double().cpu()) for x in (a, b[which.long().to(DEVICE)]))
        return (unit - other).square().mul(head.double()[:, None, None]).sum((1, 2, 3)) / 50

    x = a.cpu().double().requires_grad_()
    expected = plain(x)
    sums = perceptual._Sums(torch.empty(0), (), [50])
    total = expected.sum() * sums.scale
    if d_pooled is not None:
        total = total + (F.max_pool2d(x, 2) * d_pooled.cpu().double()).sum()
    total.backward()
    assert x.grad is not None
    x.grad[x <= 0] = 0.0
    targets = perceptual._Targets([b], *on_device(which, places))
    for with_gradient in (True, False):
        parts = torch.zeros(4, perceptual._n_sums(*size, 16), device=DEVICE)
        sums = replace(sums, parts=parts, of_layers=(parts,))
        slope = perceptual._compare(a, d_pooled, head.to(DEVICE), 0, targets, sums, with_gradient)
        found = parts.sum(1).cpu()
        assert (found[places.long()] - expected).abs().max() < 1e-5 and found[1] == 0
        if with_gradient:
            assert (slope.cpu() - x.grad).abs().max() < 1e-4 * x.grad.abs().max()


def test_slopes_by_features_of_hardly_any_length_are_finite_in_float16() -> None:
    head, only = rand(16, seed=2).to(DEVICE), torch.zeros(1, dtype=torch.int32, device=DEVICE)
    a, b = (channels_last(1, 16, 2, 2, seed=seed, dtype=torch.float16) for seed in (0, 1))
    parts = torch.zeros(1, 1, device=DEVICE)
    sums = perceptual._Sums(parts, (parts,), [4])
    slope = perceptual._compare(a * 1e-6, None, head, 0, perceptual._Targets([b], only, only), sums)
    assert slope.isfinite().all() and slope.abs().max() > 1000


@pytest.mark.parametrize("size", [(5, 7), (11, 141), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_first_layer_of_parts_of_chosen_images_and_its_gradient(
    size: tuple[int, int], dtype: torch.dtype
) -> None:
    """Images around the parts, and those not chosen, change nothing and are not changed."""
    exact = random_lpips("vgg")
    convolution, (height, width) = exact.trunk[0], size
    layer = FirstLayer(convolution.to(DEVICE), *on_device(exact.shift, exact.spread), dtype)
    images = rand(3, 3, height + 2, width + 5)
    places = torch.tensor([2, 0], dtype=torch.int32)
    part = (..., slice(1, height + 1), slice(3, width + 3))

    x = images[part][[2, 0]].double().requires_grad_()
    normal = (2 * x - 1 - exact.shift.cpu()) / exact.spread.cpu()
    rounded = normal + (normal.detach().to(dtype) - normal.detach())
    weight, bias = (p.detach().cpu().to(dtype).double() for p in convolution.parameters())
    before_relu = F.conv2d(rounded, weight, bias, padding=1)
    expected = before_relu.detach().relu()
    signs = layer.room_for_signs(2, images.to(DEVICE)[part])
    out = layer.of_places(images.to(DEVICE)[part], places.to(DEVICE), signs)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    assert (out.cpu() - expected).abs().max() < tolerance * expected.abs().max()
    bits = (signs.cpu().long()[..., None, :] >> torch.arange(8)[:, None]) & 1
    assert torch.equal(bits.flatten(3).movedim(3, 1) == 1, out.cpu() > 0)
    each = layer.of_each(list(images.to(DEVICE)[part][[2, 0]]))
    assert torch.equal(each, out)

    grad = (rand(*out.shape, seed=1) - 0.5).to(dtype).contiguous(memory_format=torch.channels_last)
    (grad.double() * before_relu * (out.cpu() > 0)).sum().backward()
    result = torch.full_like(images, 7.0, device=DEVICE)
    layer.differentiate(grad.to(DEVICE), signs, places.to(DEVICE), result[part])
    found = result.cpu()
    assert x.grad is not None
    assert (found[part][[2, 0]] - x.grad).abs().max() < 3e-5 * x.grad.abs().max()
    found[2][part], found[0][part] = 7.0, 7.0
    assert (found == 7.0).all()


def whole_image(model: Lpips, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """LPIPS without a crop."""
    distance = x.new_zeros(len(x))
    for head, a, b in zip(model.heads, model.features(x), model.features(y), strict=True):
        distance = distance + ((a - b).square() * head.view(1, -1, 1, 1)).sum(1).mean((1, 2))
    return distance


@pytest.fixture
def cropped(monkeypatch) -> tuple[Lpips, Crop, torch.Tensor, torch.Tensor]:
    """LPIPS with a quarter of the channels, a crop, and two images with a target each; they differ in a corner."""
    spec, size = TRUNKS["vgg"], (16, 400)
    thin = {
        layer: (max(n_in // 4, 3), n_out // 4, *rest)
        for layer, (n_in, n_out, *rest) in spec.convolutions.items()
    }
    monkeypatch.setitem(TRUNKS, "vgg", replace(spec, convolutions=thin))
    if not HAS_GPU:
        for name in ("COMPARED", "POOLED", "MASKED"):  # the interpreter is slow by programs
            monkeypatch.setattr(perceptual, name, 1 << 14)
        monkeypatch.setattr(first_layer, "COLUMNS_BY_HAND", 256)
        monkeypatch.setattr(first_layer, "COLUMNS", 256)
    exact = random_lpips("vgg")
    x, y = rand(2, 3, *size), rand(2, 3, *size, seed=1)
    y[..., 7:] = x[..., 7:]
    assert exact.sight is not None
    part = Crop(size, exact.sight)
    part.expect(Box(0, 16, 0, 4))
    assert part.part == Box(0, 16, 0, 208)
    return exact, part, x, y


@pytest.mark.parametrize(
    ("dtype", "tolerance", "gradient_tolerance"), [(torch.float32, 2e-5, 1e-2), (torch.bfloat16, 1e-3, 0.25)]
)
def test_perceptual_distance_of_a_part_is_that_of_whole_images_in_single_precision(
    cropped, dtype: torch.dtype, tolerance: float, gradient_tolerance: float
) -> None:
    exact, part, x, y = cropped
    expected, (expected_gradient,) = gradients(lambda x: whole_image(exact, x, y.to(x)), x)
    half = HalfLpips(exact.to(DEVICE), 2, dtype)
    half.crop = part
    y = y.to(DEVICE)
    with torch.backends.cudnn.flags(allow_tf32=False):
        half.remember([y[1]])
        assert [f.shape[3] for f in half.known(y[1])] == [208, 104, 52, 26, 13]
        found, (gradient,) = gradients(lambda x: half(x, list(y)), x.to(DEVICE))
    assert part.part == Box(0, 16, 0, 208)
    assert (found - expected).abs().max() <= tolerance * expected.abs().min()
    assert (gradient - expected_gradient).norm() <= gradient_tolerance * expected_gradient.norm()
    assert not gradient[..., 208:].any() and gradient[..., 7:208].any()
    part.expect(Box(0, 16, 0, 60))
    assert [f.shape[3] for f in half.known(y[1])] == [272, 136, 68, 34, 17]
    assert half.known(y[0]) is None


def test_gradients_of_means_over_a_million_pixels_do_not_vanish_in_float16(cropped) -> None:
    exact, _, x, y = cropped
    x, y = (F.pad(images, (0, 62500 - images.shape[3])) for images in (x, y))
    expected, (expected_gradient,) = gradients(lambda x: exact(x, y.to(x)), x)
    half = HalfLpips(exact.to(DEVICE), 2, torch.float16)
    half.crop = Crop(x.shape[2:], exact.sight)
    half.crop.slack_px = 0
    half.crop.expect(Box(0, 16, 0, 7))
    found, (gradient,) = gradients(lambda x: half(x, list(y.to(x))), x.to(DEVICE))
    assert half.crop.part == Box(0, 16, 0, 208)
    assert (found - expected).abs().max() <= 1e-3 * expected.abs().min()
    assert (gradient - expected_gradient).norm() <= 0.15 * expected_gradient.norm()


def test_a_difference_outside_the_part_grows_it_or_is_flagged_in_a_graph(cropped, monkeypatch) -> None:
    _, part, x, y = cropped
    x, y = on_device(x, y)
    last = part.expected.right - 1
    assert part.expected == Box(0, 16, 0, 4 + part.slack_px)
    for column, is_outside in ((last, False), (last + 1, True), (399, True)):
        moved = y.clone()
        moved[1, 2, 15, column] += 0.5
        before = part.part
        monkeypatch.setattr(crop, "is_capturing", lambda device: True)
        with watched_rooms() as flags:
            part.check(x, moved)
        assert [bool(flag) for flag in flags] == [is_outside]
        assert part.part == before
    monkeypatch.setattr(crop, "is_capturing", lambda device: False)
    part.check(x, y)
    assert part.part == Box(0, 16, 0, 208)
    y[1, 2, 15, 60] += 0.5
    part.check(x, y)
    assert part.expected == Box(0, 16, 0, 61 + part.slack_px) and part.part == Box(0, 16, 0, 272)
    y[0, 0, 3, 399] += 0.5
    part.check(x, y)
    assert part.is_whole
    with watched_rooms() as flags:
        part.check(x, y)
    assert flags == []
