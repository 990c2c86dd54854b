"""Rasterizers against the published ones: images, gradients, intermediate values, mesh masks (SPEC 10, 11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from common.camera import Camera
from common.gaussians import Gaussians
from common.rasterizer import Splats, interpolate_mesh, rasterize, rasterize_mesh, torch_backend
from common.rasterizer.interface import FILTER_PX2
from tests.golden import scene
from tests.golden.conftest import GOLDEN_DIR

Golden = Callable[[str], dict[str, np.ndarray]]
IMAGE_TOLERANCE = 5e-5
# Where an alpha or a depth is on a threshold (1/255, 1e-4, equal depth), the rounding of a processor or of a dtype
# flips it. Such values are found by moving the Gaussians by about as much. A share FLIPPED of an image may differ by up
# to FLIP_TOLERANCE, and only there.
JITTER, N_JITTERS, FLIPPED, FLIP_TOLERANCE = 3e-7, 6, 1e-3, 2e-3
GRADIENT_TOLERANCE = 1e-3  # relative L2; 1e-5 unless a threshold flips
CUDA_FILES = tuple(
    f"12_rasterizer_cuda/{f.name}" for f in sorted(GOLDEN_DIR.glob("12_rasterizer_cuda/*.npz"))
)
FILES = (*CUDA_FILES, "07_rasteriser.npz", "07_rasteriser_stress.npz")

# our name -> name in 12_rasterizer_cuda, name in 07
LEAVES = {
    "mean": ("means", "mean_3d"),
    "scale": ("scales", "scale"),
    "rgb": ("rgb", "rgb"),
    "opacity": ("opacities", "opacity"),
}


class Case:
    """A golden scene with its image and gradients."""

    def __init__(self, arrays: dict[str, np.ndarray], dtype: torch.dtype = torch.float32) -> None:
        column = 0 if "means" in arrays else 1
        prefix = "" if column == 0 else "cam_"

        def stored(name: str) -> Tensor:
            return scene.from_numpy(arrays[name]).to(dtype, copy=True)

        self.image = stored("image" if column == 0 else "img")
        self.weight = stored("grad_image" if column == 0 else "random_weight")
        self.background = stored("background" if column == 0 else "bg")
        names = {name: both[column] for name, both in LEAVES.items()}
        self.leaves = {name: stored(key).requires_grad_() for name, key in names.items()}
        self.grads = {name: stored(f"grad_{key}") for name, key in names.items()}
        self.exact = {
            name: stored(f"grad_exact_{key}") for name, key in names.items() if f"grad_exact_{key}" in arrays
        }
        quaternion = next(key for key in ("quats_wxyz", "rotation_wxyz", "rotation") if key in arrays)
        self.radius = scene.from_numpy(arrays["radii" if column == 0 else "radius"])
        self.gaussians = Gaussians(
            mean=self.leaves["mean"],
            scale=self.leaves["scale"],
            rgb=self.leaves["rgb"],
            rotation=stored(quaternion),
            opacity=self.leaves["opacity"][:, 0],
        )
        parts = (stored(prefix + key) for key in ("R", "t", "focal", "princpt"))
        self.camera = Camera(*parts, height=self.image.shape[1], width=self.image.shape[2])

    def splats(self) -> Splats:
        """The call as a backend sees it."""
        assert self.gaussians.opacity is not None
        return Splats(
            self.gaussians.mean,
            self.gaussians.scale,
            self.gaussians.rotation,
            self.gaussians.opacity,
            self.camera,
            self.gaussians.rgb,
            (False, False, False),
            self.background,
        )

    @torch.no_grad()
    def flippable(self) -> Tensor:
        """Values of the image (3, H, W) that rounding of the Gaussians changes by more than half the tolerance."""
        mean = self.leaves["mean"]

        def image_of(moved: Tensor) -> Tensor:
            gaussians = replace(self.gaussians, mean=moved)
            return rasterize(gaussians, self.camera, gaussians.rgb, None, self.background)

        still, is_flippable = image_of(mean), torch.zeros_like(self.image, dtype=torch.bool)
        for seed in range(N_JITTERS):
            noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
            is_flippable |= (image_of(mean * (1 + JITTER * noise)) - still).abs() > IMAGE_TOLERANCE / 2
        return is_flippable

    def check(self, image: Tensor, grads: dict[str, Tensor]) -> None:
        """Image and gradients of its weighted sum within the tolerances."""
        error, is_flippable = (image - self.image).detach().abs(), self.flippable()
        assert (error > IMAGE_TOLERANCE).float().mean() <= FLIPPED
        assert error[~is_flippable].max() <= IMAGE_TOLERANCE
        assert error.max() < FLIP_TOLERANCE
        (image * self.weight).sum().backward()
        errors = {name: scene.relative_error(self.leaves[name].grad, grads[name]) for name in grads}
        own = self.own_gradient_changes() if max(errors.values()) > GRADIENT_TOLERANCE else {}
        for name, error_of_grad in errors.items():
            assert error_of_grad <= max(GRADIENT_TOLERANCE, 2 * own.get(name, 0.0)), (name, own)

    def own_gradient_changes(self) -> dict[str, float]:
        """How far our own gradients move when the Gaussians do by JITTER: much where a threshold flips."""

        def gradients_of(mean: Tensor) -> dict[str, Tensor]:
            leaves = {name: value.detach().clone() for name, value in self.leaves.items()} | {"mean": mean}
            leaves = {name: value.requires_grad_() for name, value in leaves.items()}
            parts = {"mean": leaves["mean"], "scale": leaves["scale"], "rgb": leaves["rgb"]}
            gaussians = replace(self.gaussians, opacity=leaves["opacity"][:, 0], **parts)
            image = rasterize(gaussians, self.camera, gaussians.rgb, None, self.background, "numba")
            grads = torch.autograd.grad((image * self.weight).sum(), list(leaves.values()))
            return dict(zip(leaves, grads, strict=True))

        mean = self.leaves["mean"].detach()
        still, largest = gradients_of(mean.clone()), dict.fromkeys(self.leaves, 0.0)
        for seed in range(N_JITTERS):
            noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed))
            for name, grad in gradients_of(mean * (1 + JITTER * noise)).items():
                largest[name] = max(largest[name], scene.relative_error(grad, still[name]))
        return largest


@pytest.mark.parametrize("backend", ["torch", "numba" if scene.DEVICE.type == "cpu" else "triton"])
@pytest.mark.parametrize("file", FILES)
def test_image_and_gradients_equal_the_published_rasterizer(
    golden: Golden, file: str, backend: str, dtype: torch.dtype
) -> None:
    case = Case(golden(file), dtype)
    assert case.gaussians.mean.dtype == dtype
    case.check(
        rasterize(case.gaussians, case.camera, case.gaussians.rgb, None, case.background, backend),
        case.grads,
    )


@pytest.mark.parametrize("file", FILES)
def test_settings_of_the_published_rasterizer(golden: Golden, file: str) -> None:
    """The filter's variance, the image's size and the camera's matrices, where they are stored."""
    arrays = golden(file)
    case = Case(arrays)
    assert float(arrays["kernel_size"]) == pytest.approx(FILTER_PX2)
    for name in ("image_size", "shape_hw"):
        if name in arrays:
            assert arrays[name].tolist() == [case.camera.height, case.camera.width]
    if "view_matrix" in arrays:
        view, projection = scene.view_and_projection(case.camera)
        np.testing.assert_allclose(view, arrays["view_matrix"], atol=1e-6)
        np.testing.assert_allclose(projection, arrays["proj_matrix"], atol=1e-5)


@pytest.mark.parametrize("file", FILES)
def test_radii_equal_the_published_ones(golden: Golden, file: str) -> None:
    """Of all Gaussians that are drawn. A radius is rounded up: one in 10^4 may be one pixel off by rounding."""
    case = Case(golden(file))
    prints = torch_backend.project(case.splats())
    expected = case.radius[prints.index]
    difference = (prints.radius_px.int() - expected).abs()
    assert (expected > 0).all()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 1e-3


def test_exact_gradients_of_the_reference_equal_autograd_of_the_published_forward(golden: Golden) -> None:
    case = Case(golden("07_rasteriser_stress.npz"))
    case.check(torch_backend.render(case.splats(), exact_gradients=True), case.exact)


def test_gradients_of_the_projected_means_equal_the_published_ones(
    golden: Golden, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inside the rasterizer, on the way to those of the means; the published ones are of clip space [-1, 1]."""
    arrays, kept = golden("07_rasteriser.npz"), []

    def project(splats: Splats, exact_gradients: bool) -> torch_backend.Footprints:
        prints = own(splats, exact_gradients)
        prints.mean_px.retain_grad()
        kept.append(prints)
        return prints

    own, case = torch_backend.project, Case(arrays, dtype)
    monkeypatch.setattr(torch_backend, "project", project)
    (torch_backend.render(case.splats()) * case.weight).sum().backward()
    (prints,) = kept
    pixels_per_unit = torch.tensor([case.camera.width, case.camera.height], dtype=dtype) / 2
    ours = torch.zeros(arrays["grad_mean_2d"].shape, dtype=dtype)
    ours[prints.index] = prints.mean_px.grad * pixels_per_unit
    error = scene.relative_error(ours, arrays["grad_mean_2d"])
    assert error < GRADIENT_TOLERANCE or error < 2 * case.own_gradient_changes()["mean"]


def test_footprints_equal_the_published_ones(golden: Golden) -> None:
    arrays = golden("07_rasteriser_stress.npz")
    prints = torch_backend.project(Case(arrays).splats())
    expected = {
        key: scene.from_numpy(value)[prints.index]
        for key, value in arrays.items()
        if value.shape[:1] == (len(arrays["depth"]),)
    }
    assert expected["visible"].all()
    assert torch.allclose(prints.mean_px, expected["means_2d_pixel"], rtol=1e-5, atol=1e-3)
    assert torch.allclose(prints.conic, expected["conic"], rtol=1e-3, atol=1e-5)
    assert torch.allclose(prints.opacity, expected["opacity_times_coef"], atol=1e-4)
    assert torch.allclose(prints.depth, expected["depth"], atol=1e-6)
    assert torch.equal(prints.radius_px.int(), expected["radius"])
    assert torch.equal(prints.tile_lo, expected["tile_rect_lo"])
    assert torch.equal(prints.tile_hi, expected["tile_rect_hi"])


@pytest.mark.parametrize("frame", ["captured", "generated_identity_cam"])
@pytest.mark.parametrize("patch", ["", "patch_"])
@pytest.mark.parametrize("part", ["face", "eye"])
def test_mesh_masks_equal_the_published_ones(golden: Golden, frame: str, patch: str, part: str) -> None:
    renders = golden(f"07_renders_{frame}.npz")
    masks, faces = golden("03_masks.npz"), scene.from_numpy(golden("01_subdivision.npz")["faces_lr"])
    expected = scene.from_numpy(renders[f"{patch}{part}_mesh_mask"])
    prefix = "cam_face_" if patch else "cam_"
    parts = (scene.from_numpy(renders[prefix + key]) for key in ("R", "t", "focal", "princpt"))
    camera = Camera(*parts, height=expected.shape[1], width=expected.shape[2])
    is_eye, is_expression = (scene.from_numpy(masks[f"is_{k}_lr"]).reshape(-1) for k in ("eye", "face_expr"))
    is_part = is_eye if part == "eye" else is_eye | is_expression
    vertices = camera.world_to_camera(scene.from_numpy(renders["smplx_vert_lr_world"]))
    image = interpolate_mesh(rasterize_mesh(vertices, faces, camera), is_part[:, None].float())
    assert (image - expected).abs().max() < 1e-4


@pytest.mark.parametrize("frame", ["captured", "generated_identity_cam"])
def test_hand_mesh_masks_of_world_coordinates_equal_the_published_ones(golden: Golden, frame: str) -> None:
    renders, masks = golden(f"07_renders_{frame}.npz"), golden("03_masks.npz")
    expected = scene.from_numpy(renders["hand_mesh_mask"])
    parts = (scene.from_numpy(renders["cam_" + key]) for key in ("R", "t", "focal", "princpt"))
    camera = Camera(*parts, height=expected.shape[1], width=expected.shape[2])
    vertices = scene.from_numpy(renders["smplx_vert_lr_world"])
    for hand, side in enumerate("rl"):
        own = vertices[scene.from_numpy(masks[f"{side}hand_vertex_idx"])]
        fragments = rasterize_mesh(own, scene.from_numpy(masks[f"{side}hand_face"]), camera)
        assert torch.equal((fragments.face_index >= 0).float(), expected[hand])
