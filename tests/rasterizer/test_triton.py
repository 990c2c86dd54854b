"""The Triton kernels beyond what test_gaussians.py asks of every backend.

On a GPU, or small scenes in Triton's interpreter (run by test_triton_interpreted.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from common.camera import Camera
from common.gaussians import Gaussians
from common.rasterizer import (
    Scene as Drawing,
)
from common.rasterizer import (
    rasterize,
    rasterize_together,
    triton_backend,
    triton_loader,
    triton_tile_lists,
)
from common.rasterizer.interface import _splats
from common.rasterizer.triton_canvas import Canvas
from common.rasterizer.triton_footprints import geometry_of, project
from common.rasterizer.triton_images import blend
from common.rasterizer.triton_tile_lists import list_gaussians
from tests.golden.conftest import GOLDEN_DIR
from tests.golden.test_rasterizer import CUDA_FILES, GRADIENT_TOLERANCE, IMAGE_TOLERANCE, Case
from tests.rasterizer.scenes import Scene, gradients, random_scene, relative_error

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
PROBE = triton_loader._works
pytestmark = pytest.mark.usefixtures("triton_device")
needs_gpu = pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA device")
Size = tuple[int, int, int]  # Gaussians, height, width
SIZES: list[Size] = [(60, 18, 23), (60, 7, 34)]
if HAS_GPU:
    SIZES += [(3000, 137, 203), (20, 1, 1)]


@pytest.fixture
def fresh_probe(triton_device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check whether the kernels work, as at the start of a program."""
    monkeypatch.setattr(triton_loader, "_works", PROBE)
    monkeypatch.setattr(triton_loader, "_working", {})
    triton_loader._warn.cache_clear()


def scene_and_weight(seed: int, size: Size, n_channels: int, is_general: bool) -> tuple[Scene, Tensor]:
    """A float32 scene on the CPU and a random weight of its image."""
    n, height, width = size
    scene = random_scene(seed, n, n_channels, height, width, dtype=torch.float32, is_general=is_general)
    return scene, torch.randn(n_channels, height, width, generator=torch.Generator().manual_seed(7))


def check_equal(scene: Scene, weight: Tensor, detached: list[bool] | None = None) -> None:
    """Image and gradients agree with the CPU kernels."""
    image, grads = gradients(scene.to(DEVICE), "triton", weight.to(DEVICE), detached)
    expected_image, expected = gradients(scene, "numba", weight, detached)
    assert image.device.type == DEVICE.type
    assert (image.cpu() - expected_image).abs().max() < 1e-4
    assert grads.keys() == expected.keys()
    for name in expected:
        assert relative_error(grads[name].cpu(), expected[name]) < 1e-4, name


@pytest.mark.parametrize("is_general", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_image_and_gradients_equal_the_cpu_kernels(size: Size, is_general: bool) -> None:
    scene, weight = scene_and_weight(0, size, 4, is_general)
    check_equal(scene, weight, [False, True, False, True])


@pytest.mark.parametrize("n_channels", [1, 3, 17, 64])
def test_any_number_of_channels(n_channels: int) -> None:
    scene, weight = scene_and_weight(1, (40, 12, 16), n_channels, is_general=False)
    check_equal(scene, weight, [i % 3 == 1 for i in range(n_channels)])


@pytest.mark.parametrize("chunk", [64, 4])
def test_lists_longer_than_a_chunk(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Also lists of more chunks than are multiplied at a time."""
    monkeypatch.setattr(triton_tile_lists, "CHUNK", chunk)
    n = 75
    scene, weight = scene_and_weight(2, (n, 4, 6), 3, is_general=True)
    generator = torch.Generator().manual_seed(0)
    cam = torch.cat([0.05 * torch.randn(n, 2, generator=generator), torch.linspace(1, 3, n)[:, None]], 1)
    camera = replace(scene.camera, princpt=torch.tensor([3.0, 2.0]))
    faint = replace(
        scene.gaussians,
        mean=camera.camera_to_world(cam),
        opacity=torch.full((n,), 0.06),
        scale=torch.tensor([[0.1, 0.2, 0.4]]).repeat(n, 1),
    )
    check_equal(replace(scene, gaussians=faint, camera=camera), weight, [False, True, False])


def test_depths_that_share_a_key_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, weight = scene_and_weight(8, (60, 18, 23), 2, is_general=False)
    n_tiles = 4
    monkeypatch.setattr(triton_tile_lists, "KEY_BITS", n_tiles.bit_length() + 2)  # four steps of depth
    check_equal(scene, weight)


def test_lists_that_do_not_fit_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_backend, "_capacities", {})
    monkeypatch.setattr(triton_tile_lists, "ROUNDING", 16)
    monkeypatch.setattr(triton_tile_lists, "FIRST_GUESS", 0.1)
    scene, weight = scene_and_weight(3, (60, 18, 23), 2, is_general=False)
    check_equal(scene, weight)


def test_an_image_whose_lists_do_not_fit_is_nowhere_a_number() -> None:
    """Also where no Gaussian is: who looks at any pixel sees it."""
    mean = torch.tensor([[0.3, 0.2, 1.0]], device=DEVICE).repeat(40, 1)
    ones = torch.ones_like(mean)
    gaussians = Gaussians(mean, 0.02 * ones[:, :1], ones)
    camera = Camera.identity((16.0, 16.0), (8.0, 8.0), 16, 32).to(DEVICE)
    splats = _splats(gaussians, camera, ones[:, :2], None, None)
    canvas = Canvas.of([splats])
    tiles_x, n_tiles = canvas.n_tiles
    footprints = project([splats], [geometry_of(splats)], canvas)
    for capacity, is_number in ((64, True), (16, False)):
        lists = list_gaussians(footprints, tiles_x, n_tiles, capacity)
        image, _ = blend(canvas, splats.background, footprints, lists, splats.channels)
        assert image.isfinite().all() if is_number else image.isnan().all()
        assert not is_number or ((image[:, 0] == 0).all() and image.max() > 0.5)


def test_one_gaussian_and_one_tile_are_enough() -> None:
    scene = random_scene(0, 1, 2, 8, 8, dtype=torch.float32, is_general=False)
    gaussians = Gaussians(torch.tensor([[0.0, 0.0, 1.0]]), torch.full((1, 1), 0.2), torch.ones(1, 3))
    scene = replace(scene, gaussians=gaussians, camera=Camera.identity((8.0, 8.0), (4.0, 4.0), 8, 8))
    assert scene.render("numba").max() > 0.5 * scene.channels.max()
    check_equal(scene, torch.ones(2, 8, 8))


def test_too_many_pairs_are_left_to_torch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(triton_tile_lists, "MAX_PAIRS", 3)
    scene, weight = scene_and_weight(4, (60, 18, 23), 2, is_general=False)
    with caplog.at_level(logging.WARNING):
        check_equal(scene, weight)
    assert "slower rasterizer" in caplog.text


def test_what_the_kernels_cannot_do_is_left_to_torch() -> None:
    double = random_scene(7, n=20, height=9, width=12).to(DEVICE)
    assert torch.equal(double.render("triton"), double.render("torch"))
    scene, _ = scene_and_weight(7, (20, 9, 12), 65, is_general=False)
    assert torch.equal(scene.to(DEVICE).render("triton"), scene.to(DEVICE).render("torch"))


def test_a_machine_without_working_triton_gets_torch_and_one_warning(
    fresh_probe: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(triton_loader, "_probe", broken)
    scene = scene_and_weight(8, (20, 9, 12), 2, is_general=False)[0].to(DEVICE)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(scene.render("triton"), scene.render("torch"))
        scene.render("triton")
    assert caplog.text.count("Failed to find C compiler") == 1


def test_the_probe_finds_the_kernels_working(fresh_probe: None) -> None:
    with torch.no_grad():
        scene_and_weight(9, (20, 9, 12), 2, is_general=True)[0].to(DEVICE).render("triton")
    assert list(triton_loader._working.values()) == [True]


def test_cpu_tensors_are_refused_outside_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="works on CUDA tensors"):
        scene_and_weight(10, (5, 9, 12), 2, is_general=True)[0].render("triton")


@needs_gpu
@pytest.mark.parametrize("file", CUDA_FILES)
def test_image_and_gradients_equal_the_published_rasterizer(golden_arrays: Callable, file: str) -> None:
    case = Case(golden_arrays(file))
    leaves = {name: leaf.detach().to(DEVICE).requires_grad_() for name, leaf in case.leaves.items()}
    assert case.gaussians.rotation is not None
    gaussians = Gaussians(
        leaves["mean"],
        leaves["scale"],
        leaves["rgb"],
        case.gaussians.rotation.to(DEVICE),
        leaves["opacity"][:, 0],
    )
    background = case.background.to(DEVICE)
    image = rasterize(gaussians, case.camera.to(DEVICE), leaves["rgb"], None, background, "triton")
    (image * case.weight.to(DEVICE)).sum().backward()
    assert (image.detach().cpu() - case.image).abs().max() < IMAGE_TOLERANCE
    for name, expected in case.grads.items():
        grad = leaves[name].grad
        assert grad is not None
        assert relative_error(grad.cpu(), expected) < GRADIENT_TOLERANCE, name


@pytest.fixture
def golden_arrays() -> Callable[[str], dict[str, np.ndarray]]:
    """All arrays of a golden .npz by its name."""

    def load(name: str) -> dict[str, np.ndarray]:
        if not (GOLDEN_DIR / name).exists():
            pytest.skip(f"{name} is not in {GOLDEN_DIR}")
        with np.load(GOLDEN_DIR / name, allow_pickle=False) as arrays:
            return dict(arrays)

    return load


@needs_gpu
def test_a_captured_graph_repeats_the_call_and_shows_when_its_lists_do_not_fit() -> None:
    scene, weight = scene_and_weight(11, (3000, 64, 80), 3, is_general=False)
    scene, weight = scene.to(DEVICE), weight.to(DEVICE)
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in scene.leaves().items()}

    def call() -> tuple[Tensor, ...]:
        image = scene.with_leaves(leaves).render("triton")
        gradients_of_sum = torch.autograd.grad(image, list(leaves.values()), weight)
        return image.detach(), *gradients_of_sum

    expected = call()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()
    graph.replay()
    assert torch.equal(results[0], expected[0])
    for result, value in zip(results[1:], expected[1:], strict=True):
        assert relative_error(result, value) < 1e-5
    with torch.no_grad():
        leaves["scale"].fill_(3.0)
    graph.replay()
    assert torch.isnan(results[0]).all()


def test_several_sets_and_cameras_in_one_call_are_as_one_by_one() -> None:
    """Other sizes of image, other numbers of Gaussians and channels, other flags."""
    sizes, widths = [(40, 18, 23), (60, 33, 17), (25, 5, 40)], [3, 5, 1]
    cases = [
        scene_and_weight(i, size, width, i == 1)
        for i, (size, width) in enumerate(zip(sizes, widths, strict=True))
    ]
    flags = [[bool((i + c) % 2) for c in range(width)] for i, width in enumerate(widths)]
    scenes, leaves = [], []
    for (scene, _), detached in zip(cases, flags, strict=True):
        mine = {name: tensor.to(DEVICE).requires_grad_() for name, tensor in scene.leaves().items()}
        moved = scene.to(DEVICE).with_leaves(mine)
        scenes.append(Drawing(moved.gaussians, moved.camera, moved.channels, detached))
        leaves.append(mine)
    images = rasterize_together(scenes, backend="triton")
    sum(
        (image * weight.to(DEVICE)).sum() for image, (_, weight) in zip(images, cases, strict=True)
    ).backward()
    for (scene, weight), detached, image, mine in zip(cases, flags, images, leaves, strict=True):
        no_background = replace(scene, background=torch.zeros_like(scene.background))
        expected_image, expected = gradients(no_background, "numba", weight, detached)
        assert (image.detach().cpu() - expected_image).abs().max() < 1e-4
        for name, gradient in expected.items():
            assert relative_error(mine[name].grad.cpu(), gradient) < 1e-4, name
