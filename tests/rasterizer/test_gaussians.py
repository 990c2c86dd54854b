"""The Gaussian rasterizer: the torch reference against the text, the other backends against the reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from common.camera import Camera
from common.gaussians import Gaussians
from common.rasterizer import Splats, backend_names, interface, register_backend, torch_backend
from tests.rasterizer.scenes import Backend, Scene, gradients, random_scene, relative_error, scalar_image


def _weight(scene: Scene, seed: int = 7) -> Tensor:
    shape = (scene.channels.shape[1], scene.camera.height, scene.camera.width)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=scene.channels.dtype).to(scene.channels.device)


@pytest.mark.parametrize("is_general", [True, False])
def test_image_equals_the_scalar_loop(backend: Backend, is_general: bool) -> None:
    scene = backend.scene(1, n=40, height=18, width=23, is_general=is_general)
    image = scene.render(backend.name).cpu().double()
    assert torch.allclose(image, scalar_image(scene.to("cpu")), rtol=0, atol=backend.tolerance)


def test_one_gaussian_has_the_known_value_at_its_centre_and_beside_it(backend: Backend) -> None:
    camera = Camera.identity((100.0, 100.0), (8.5, 8.5), 17, 20)
    variance_px = (100.0 * 0.04 / 2.0) ** 2
    opacity = (variance_px**2 / ((variance_px + 0.1) ** 2 + 1e-6) + 1e-6) ** 0.5
    gaussians = Gaussians(
        mean=torch.tensor([[0.0, 0.0, 2.0]]),
        scale=torch.tensor([[0.04]]),
        rgb=torch.zeros(1, 3),
        opacity=torch.tensor([0.6]),
    )
    scene = Scene(gaussians, camera, torch.tensor([[3.0]]), torch.tensor([1.0])).to(backend.device)
    image = scene.render(backend.name)
    centre = 0.6 * opacity
    beside = centre * torch.exp(torch.tensor(-0.5 * 4.0 / (variance_px + 0.1))).item()
    assert image[0, 8, 8].item() == pytest.approx(3 * centre + 1 - centre, abs=1e-5)
    assert image[0, 8, 10].item() == pytest.approx(3 * beside + 1 - beside, abs=1e-5)


def test_exact_gradients_of_the_reference_pass_gradcheck() -> None:
    scene = random_scene(3, n=10, n_channels=2, height=18, width=11)
    names = list(scene.leaves())
    weights = torch.stack([_weight(scene, seed) for seed in range(3)])

    def render(*tensors: Tensor) -> Tensor:
        moved = scene.with_leaves(dict(zip(names, tensors, strict=True)))
        splats = Splats(
            moved.gaussians.mean,
            moved.gaussians.scale,
            moved.gaussians.rotation,
            moved.gaussians.opacity,
            scene.camera,
            moved.channels,
            (False, False),
            scene.background,
        )
        return (torch_backend.render(splats, exact_gradients=True) * weights).sum((1, 2, 3))

    leaves = tuple(leaf.clone().requires_grad_() for leaf in scene.leaves().values())
    assert torch.autograd.gradcheck(render, leaves, eps=1e-7, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("is_general", [True, False])
@pytest.mark.parametrize("size", [(37, 52), (16, 16), (50, 7)])
@pytest.mark.parametrize("seed", [0, 1])
def test_numba_equals_the_reference_in_float64(seed: int, size: tuple[int, int], is_general: bool) -> None:
    scene = random_scene(seed, height=size[0], width=size[1], is_general=is_general)
    detached = [False, True, False, True]
    image, grads = gradients(scene, "numba", _weight(scene), detached)
    expected_image, expected = gradients(scene, "torch", _weight(scene), detached)
    assert torch.allclose(image, expected_image, rtol=0, atol=1e-12)
    assert grads.keys() == expected.keys()
    for name in expected:
        assert relative_error(grads[name], expected[name]) < 1e-9, name


def test_numba_equals_the_reference_in_float32() -> None:
    scene = random_scene(2, n=400, n_channels=7, height=70, width=90, dtype=torch.float32)
    image, grads = gradients(scene, "numba", _weight(scene))
    expected_image, expected = gradients(scene, "torch", _weight(scene))
    assert image.dtype == torch.float32
    assert (image - expected_image).abs().max() < 1e-5
    for name in expected:
        assert relative_error(grads[name], expected[name]) < 1e-3, name


def test_permuting_channels_permutes_the_image_and_keeps_geometry_gradients(backend: Backend) -> None:
    scene, order = backend.scene(4, n_channels=5), torch.tensor([3, 0, 4, 1, 2])
    detached = [False, True, True, False, False]
    permuted = replace(scene, channels=scene.channels[:, order], background=scene.background[order])
    image, grads = gradients(scene, backend.name, _weight(scene), detached)
    image_p, grads_p = gradients(permuted, backend.name, _weight(scene)[order], [detached[i] for i in order])
    assert (image[order] - image_p).abs().max() < backend.tolerance
    assert relative_error(grads_p["channels"], grads["channels"][:, order]) < backend.tolerance
    for name in ("mean", "scale", "rotation", "opacity"):
        assert relative_error(grads_p[name], grads[name]) < backend.tolerance, name


def test_detached_channels_send_gradient_to_channels_only(backend: Backend) -> None:
    scene = backend.scene(5)
    weight = _weight(scene)
    _, grads = gradients(scene, backend.name, weight, [False, True, False, True])
    _, attached = gradients(scene, backend.name, weight)
    only_attached = weight.clone()
    only_attached[[1, 3]] = 0
    _, expected = gradients(scene, backend.name, only_attached)
    assert relative_error(grads["channels"], attached["channels"]) < backend.tolerance
    for name in ("mean", "scale", "rotation", "opacity"):
        assert relative_error(grads[name], expected[name]) < backend.tolerance, name
    _, nothing = gradients(scene, backend.name, weight, [True] * 4)
    assert all(nothing[name].abs().max() == 0 for name in ("mean", "scale", "rotation", "opacity"))


def test_permuting_gaussians_changes_nothing(backend: Backend) -> None:
    scene = backend.scene(6)
    order = torch.randperm(len(scene.channels), generator=torch.Generator().manual_seed(0)).to(backend.device)
    shuffled = replace(scene, gaussians=scene.gaussians.select(order), channels=scene.channels[order])
    image, grads = gradients(scene, backend.name, _weight(scene))
    image_s, grads_s = gradients(shuffled, backend.name, _weight(scene))
    assert (image - image_s).abs().max() < backend.tolerance
    for name in grads:
        assert relative_error(grads_s[name], grads[name][order]) < backend.tolerance, name


def test_equally_deep_gaussians_keep_their_order(backend: Backend) -> None:
    n = 40
    gaussians = Gaussians(
        torch.tensor([[0.0, 0.0, 1.0]]).repeat(n, 1), torch.full((n, 1), 0.05), torch.zeros(n, 3)
    )
    camera = Camera.identity((40.0, 40.0), (10.0, 10.0), 20, 20)
    scene = Scene(gaussians, camera, torch.eye(n), torch.zeros(n)).to(backend.device)
    image = scene.render(backend.name)[:, 10, 10]
    assert image[0] > 0.9 and image[1] > image[2:].sum()


def test_moving_camera_and_scene_together_changes_nothing(backend: Backend) -> None:
    scene = backend.scene(8, is_general=False)
    like, generator = scene.camera.R, torch.Generator().manual_seed(0)
    world_R = like.T @ torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0].to(
        like
    )
    world_t = torch.tensor([1.0, 2.0, -3.0]).to(like)
    moved = replace(
        scene,
        gaussians=replace(scene.gaussians, mean=scene.gaussians.mean @ world_R.T + world_t),
        camera=replace(
            scene.camera,
            R=scene.camera.R @ world_R.T,
            t=scene.camera.t - scene.camera.R @ world_R.T @ world_t,
        ),
    )
    assert relative_error(moved.render(backend.name), scene.render(backend.name)) < backend.tolerance


def test_equal_scales_match_a_single_scale_and_any_rotation(backend: Backend) -> None:
    scene = backend.scene(9, is_general=False)
    n, like = len(scene.channels), scene.channels
    general = replace(
        scene,
        gaussians=replace(
            scene.gaussians,
            scale=scene.gaussians.scale.expand(n, 3),
            rotation=torch.randn(n, 4, generator=torch.Generator().manual_seed(0)).to(like),
            opacity=like.new_ones(n),
        ),
    )
    image, grads = gradients(scene, backend.name, _weight(scene))
    image_g, grads_g = gradients(general, backend.name, _weight(scene))
    assert (image - image_g).abs().max() < backend.tolerance
    assert relative_error(grads_g["mean"], grads["mean"]) < backend.tolerance
    assert relative_error(grads_g["scale"].sum(1, keepdim=True), grads["scale"]) < backend.tolerance
    assert grads_g["rotation"].abs().max() < backend.tolerance * grads["scale"].abs().max()


@pytest.mark.parametrize("where", ["none at all", "behind", "beside", "not finite"])
def test_nothing_to_draw_gives_the_background_and_zero_gradients(backend: Backend, where: str) -> None:
    mean = {
        "none at all": torch.zeros(0, 3),
        "behind": torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, 0.2]]),
        "beside": torch.tensor([[80.0, 0.0, 1.0], [0.0, -90.0, 2.0]]),
        "not finite": torch.tensor([[float("nan"), 0.0, 1.0], [float("inf"), 0.0, 1.0]]),
    }[where]
    gaussians = Gaussians(mean, torch.full((len(mean), 1), 0.01), torch.ones(len(mean), 3))
    camera = Camera.identity((50.0, 50.0), (10.0, 10.0), 21, 33)
    scene = Scene(gaussians, camera, torch.ones(len(mean), 2), torch.tensor([0.25, 0.75])).to(backend.device)
    image, grads = gradients(scene, backend.name, _weight(scene))
    assert torch.equal(image, scene.background[:, None, None].expand(2, 21, 33))
    assert torch.equal(grads["mean"], torch.zeros_like(scene.gaussians.mean))


def test_strided_inputs_without_gradients_give_the_same_image(backend: Backend) -> None:
    scene = backend.scene(10)
    strided = {
        name: torch.stack([leaf, torch.zeros_like(leaf)], -1)[..., 0] for name, leaf in scene.leaves().items()
    }
    assert not strided["mean"].is_contiguous()
    weight = _weight(scene).permute(0, 2, 1).contiguous().permute(0, 2, 1)
    image, grads = gradients(scene, backend.name, weight)
    assert torch.equal(scene.with_leaves(strided).render(backend.name), image)
    assert all(torch.isfinite(grad).all() for grad in grads.values())


@pytest.mark.parametrize("backend", ["numba", "triton"], indirect=True)
def test_background_gradient_of_transmittance_reaches_geometry(backend: Backend) -> None:
    scene = backend.scene(11, n_channels=1)
    scene = replace(scene, channels=torch.zeros_like(scene.channels))
    _, grads = gradients(scene, backend.name, _weight(scene))
    _, expected = gradients(scene, "torch", _weight(scene))
    assert expected["mean"].abs().max() > 0
    assert relative_error(grads["mean"], expected["mean"]) < backend.tolerance


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    scene = random_scene(12, n=500, dtype=torch.float32)
    n_threads = torch.get_num_threads()
    try:
        results = []
        for n in (1, 2):
            torch.set_num_threads(n)
            results.append(gradients(scene, "numba", _weight(scene)))
    finally:
        torch.set_num_threads(n_threads)
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(results[0][1][name], results[1][1][name]) for name in results[0][1])


def test_rendering_without_gradients_is_the_same_image() -> None:
    scene = random_scene(13)
    with torch.no_grad():
        image = scene.render("numba")
    assert not image.requires_grad
    assert torch.equal(image, gradients(scene, "numba", _weight(scene))[0])


def test_backends_are_found_by_name_and_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface, "_loaders", dict(interface._loaders))
    monkeypatch.setattr(interface, "_default_of_device", dict(interface._default_of_device))
    scene = random_scene(14, n=5)
    with pytest.raises(
        ValueError, match="unknown rasterizer backend 'none'; there are: auto, torch, numba, triton"
    ):
        scene.render("none")
    assert torch.equal(scene.render("auto"), scene.render("numba"))
    register_backend("zeros", lambda: lambda splats: splats.channels.new_zeros(1), default_for="cpu")
    assert "zeros" in backend_names()
    assert scene.render("auto").shape == (1,)
