"""The skinning field against slow twins, known answers, and every way its files can be wrong (SPEC 8, 17, 18)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from common.errors import UserError
from common.skinning_field import (
    COORDINATE_FILES,
    N_DIFFUSED,
    WEIGHTS_FILE,
    SkinningField,
    build_skinning_field,
    ensure_skinning_field,
)
from common.skinning_lookup import look_up_cpu, look_up_torch
from main.config import FieldConfig

LookUp = Callable[[Tensor, Tensor, Tensor], Tensor]
look_ups = pytest.mark.parametrize("look_up", [look_up_cpu, look_up_torch])
LOWER, UPPER = torch.tensor([-1.0, 0.5, -0.2]), torch.tensor([1.0, 3.5, 0.3])


def random_field(dtype: torch.dtype, shape: tuple[int, ...] = (5, 7, 9, 6)) -> SkinningField:
    """A field with all sizes different, so that swapped axes show."""
    weights = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return SkinningField(weights, LOWER.to(dtype), UPPER.to(dtype))


def random_gaussians(n: int, dtype: torch.dtype, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Centres in and around the box of `random_field`, scales from far below a cell to several cells."""
    rng = torch.Generator().manual_seed(seed)
    mean = LOWER + (UPPER - LOWER) * (torch.rand(n, 3, generator=rng) * 1.4 - 0.2)
    scale = torch.exp(torch.rand(n, 1, generator=rng) * 6 - 6.5)
    return mean.to(dtype), scale.to(dtype)


def grid_sample_twin(field: SkinningField, mean: Tensor, scale: Tensor) -> Tensor:
    """13 calls of grid_sample: zero padding for centres inside, border padding for centres outside."""
    volume = field.weights.permute(3, 2, 1, 0)[None]  # (1, J, Z, Y, X)

    def read(points: Tensor) -> Tensor:
        grid = ((points - field.lower) / (field.upper - field.lower) * 2 - 1)[None, None, None]
        zeros, border = (
            F.grid_sample(volume, grid, padding_mode=mode, align_corners=True)[0, :, 0, 0].T.clamp(min=0)
            for mode in ("zeros", "border")
        )
        return torch.where(is_outside[:, None], border, zeros)

    is_outside = ((mean < field.lower) | (mean > field.upper)).any(1)
    total = read(mean)
    for axis in torch.eye(3, dtype=mean.dtype):
        for step, weight in ((1, 0.5), (-1, 0.5), (2, 0.3), (-2, 0.3)):
            total = total + weight * read(mean + step * scale.detach() * axis)
    return F.normalize(total / (1 + 6 * 0.5 + 6 * 0.3), p=1, dim=1)


def in_cells(field: SkinningField, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    cells_per_metre = (torch.tensor(field.weights.shape[:3]) - 1) / (field.upper - field.lower)
    return (mean - field.lower) * cells_per_metre, scale * cells_per_metre


@look_ups
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-12)])
def test_lookups_equal_grid_sample(look_up: LookUp, dtype: torch.dtype, tolerance: float) -> None:
    field = random_field(dtype)
    mean, scale = random_gaussians(2000, dtype)
    found = F.normalize(look_up(field.weights, *in_cells(field, mean, scale)), p=1.0, dim=1)
    torch.testing.assert_close(found, grid_sample_twin(field, mean, scale), atol=tolerance, rtol=0)


@look_ups
def test_position_gradients_equal_grid_samples(look_up: LookUp) -> None:
    field = random_field(torch.float64)
    mean, scale = random_gaussians(2000, torch.float64)
    mean.requires_grad_()
    probe = torch.randn(2000, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = F.normalize(look_up(field.weights, *in_cells(field, mean, scale)), p=1.0, dim=1)
    (gradient,) = torch.autograd.grad((found * probe).sum(), mean)
    (expected,) = torch.autograd.grad((grid_sample_twin(field, mean, scale) * probe).sum(), mean)
    torch.testing.assert_close(gradient, expected, atol=1e-10, rtol=1e-8)


@look_ups
def test_position_gradients_pass_gradcheck(look_up: LookUp) -> None:
    field = random_field(torch.float64)
    mean, scale = random_gaussians(40, torch.float64, seed=3)
    points, steps = in_cells(field, mean, scale)
    assert torch.autograd.gradcheck(lambda p: look_up(field.weights, p, steps), points.requires_grad_())


def test_sample_sends_no_gradient_to_the_scale() -> None:
    field = random_field(torch.float32)
    mean, scale = random_gaussians(10, torch.float32)
    mean.requires_grad_()
    scale.requires_grad_()
    field.sample(mean, scale)[:, 0].sum().backward()
    assert scale.grad is None
    assert mean.grad is not None and mean.grad.abs().sum() > 0


def test_sampled_weights_sum_to_one_inside_and_outside() -> None:
    field = random_field(torch.float32)
    mean, scale = random_gaussians(500, torch.float32)
    torch.testing.assert_close(field.sample(mean, scale).sum(1), torch.ones(500))


def test_a_linear_field_is_reproduced_exactly() -> None:
    x, y, _ = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in (8, 9, 10)], indexing="ij")
    linear = torch.stack([x, 2 * y, 30 - x - 2 * y], -1)  # sums to 30 everywhere
    field = SkinningField(linear, torch.zeros(3).double(), torch.tensor([7.0, 8.0, 9.0]).double())
    mean = 3 + torch.rand(50, 3, dtype=torch.float64)
    scale = torch.rand(50, 1, dtype=torch.float64)
    expected = torch.stack([mean[:, 0], 2 * mean[:, 1], 30 - mean[:, 0] - 2 * mean[:, 1]], 1) / 30
    torch.testing.assert_close(field.sample(mean, scale), expected)


def test_a_centre_outside_takes_the_weights_of_the_border() -> None:
    field = random_field(torch.float64)
    far = torch.tensor([[500.0, 1.0, 0.0]], dtype=torch.float64)
    edge = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    tiny = torch.full((1, 1), 1e-9, dtype=torch.float64)
    torch.testing.assert_close(field.sample(far, tiny), field.sample(edge - 1e-9, tiny), atol=1e-6, rtol=0)


def test_empty_cells_give_zero_weights_and_zero_gradient() -> None:
    field = SkinningField(torch.zeros(4, 4, 4, 55), torch.zeros(3), torch.ones(3))
    mean = torch.rand(5, 3, requires_grad=True)
    weights = field.sample(mean, torch.full((5, 1), 0.1))
    weights.sum().backward()
    assert (weights == 0).all()
    assert mean.grad is not None and (mean.grad == 0).all()


@look_ups
def test_broken_and_extreme_gaussians_do_not_crash(look_up: LookUp) -> None:
    field = random_field(torch.float32)
    points = torch.tensor([[2.0, 3, 4], [float("nan"), 0, 0], [1e30, 0, 0], [2, 3, 4]])
    steps = torch.tensor([[0.1], [0.1], [0.1], [1e30]]).expand(4, 3)
    found = look_up(field.weights, points, steps)
    assert torch.isfinite(found[[0, 2, 3]]).all()
    assert torch.isnan(found[1]).all()
    assert look_up(field.weights, points[:0], steps[:0]).shape == (0, 6)


def test_sample_refuses_wrong_shapes_and_types() -> None:
    field = random_field(torch.float32)
    with pytest.raises(ValueError, match="scale"):
        field.sample(torch.zeros(4, 3), torch.zeros(4))
    with pytest.raises(ValueError, match="float64"):
        field.sample(torch.zeros(4, 3).double(), torch.zeros(4, 1).double())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_builds_and_samples_as_the_cpu_does() -> None:
    vertices, weights = small_body()
    field = build_skinning_field(vertices, weights, SMALL, progress=False)
    on_gpu = build_skinning_field(vertices.cuda(), weights.cuda(), SMALL, progress=False)
    torch.testing.assert_close(on_gpu.weights.cpu(), field.weights, atol=1e-5, rtol=0)
    scale = torch.full((60, 1), 0.05)
    on_cpu, there = vertices.clone().requires_grad_(), vertices.cuda().requires_grad_()
    field.sample(on_cpu, scale)[:, :9].square().sum().backward()
    on_gpu.sample(there, scale.cuda())[:, :9].square().sum().backward()
    assert on_cpu.grad is not None and there.grad is not None
    torch.testing.assert_close(there.grad.cpu(), on_cpu.grad, atol=1e-3, rtol=1e-3)


# Building


def small_body(n: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random vertices (n, 3) in a box 1 x 2 x 0.5 m and weights (n, 55)."""
    rng = torch.Generator().manual_seed(seed)
    vertices = torch.rand(n, 3, generator=rng) * torch.tensor([1.0, 2.0, 0.5])
    weights = torch.rand(n, 55, generator=rng) ** 8
    return vertices, weights / weights.sum(1, keepdim=True)


SMALL = FieldConfig(resolution=10, n_iterations=3, threshold_m=0.08, expansion=0.3)


def build_by_loops(vertices: np.ndarray, weights: np.ndarray, settings: FieldConfig) -> np.ndarray:
    """SPEC 8 word by word."""
    lower, upper = vertices.min(0), vertices.max(0)
    margin = settings.expansion * (upper - lower)
    d = settings.resolution
    axes = [np.linspace(lower[a] - margin[a], upper[a] + margin[a], d) for a in range(3)]
    field, is_fixed = np.zeros((d, d, d, 55)), np.zeros((d, d, d), bool)
    for i, j, k in np.ndindex(d, d, d):
        distance = np.linalg.norm(vertices - [axes[0][i], axes[1][j], axes[2][k]], axis=1)
        if distance.min() < settings.threshold_m:
            is_fixed[i, j, k] = True
            field[i, j, k] = weights[distance.argmin()]
    for _ in range(settings.n_iterations):
        old = np.pad(field, ((1, 1), (1, 1), (1, 1), (0, 0)), mode="edge")
        for i, j, k in np.ndindex(d, d, d):
            if not is_fixed[i, j, k]:
                x, y, z = i + 1, j + 1, k + 1
                neighbours = old[x - 1, y, z] + old[x + 1, y, z] + old[x, y - 1, z] + old[x, y + 1, z]
                laplacian = neighbours + old[x, y, z - 1] + old[x, y, z + 1] - 6 * old[x, y, z]
                field[i, j, k, :25] += 0.1 * laplacian[:25]
    field = field.clip(min=0)
    return field / (field.sum(-1, keepdims=True) + 1e-8)


def test_the_build_equals_plain_loops() -> None:
    vertices, weights = small_body()
    field = build_skinning_field(vertices, weights, SMALL, progress=False)
    expected = build_by_loops(vertices.double().numpy(), weights.double().numpy(), SMALL)
    np.testing.assert_allclose(field.weights.numpy(), expected, atol=2e-6)
    assert (expected.sum(-1) == 0).any() and (expected[..., N_DIFFUSED:] > 0).any()


def test_both_ways_to_diffuse_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    from common import skinning_field

    vertices, weights = small_body()
    compiled = build_skinning_field(vertices, weights, SMALL, progress=False)
    monkeypatch.setattr(skinning_field, "_diffuse_cpu", skinning_field._diffuse_torch)
    sliced = build_skinning_field(vertices, weights, SMALL, progress=False)
    torch.testing.assert_close(compiled.weights, sliced.weights, atol=1e-6, rtol=0)


def test_cells_are_empty_or_sum_to_one() -> None:
    total = build_skinning_field(*small_body(), SMALL, progress=False).weights.sum(-1)
    assert ((total == 0) | ((total - 1).abs() < 1e-3)).all()


def test_the_first_axis_is_x() -> None:
    vertices = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 4.0], [0.75, 0.5, 3.0]])
    weights = F.one_hot(torch.tensor([0, 1, 2]), 55).float()
    field = build_skinning_field(vertices, weights, FieldConfig(9, 0, 0.01, expansion=0.0), progress=False)
    assert (field.weights[..., 2] > 0.9).nonzero().tolist() == [[6, 2, 6]]


# Files


@dataclass(frozen=True)
class StandInBody:
    """As much of a body model as the field asks for."""

    low: Tensor
    skinning_weights: Tensor

    def neutral_vertices(self, identity: None, jaw_open: bool) -> Tensor:
        assert identity is None and not jaw_open
        return self.low


@pytest.fixture
def body() -> StandInBody:
    return StandInBody(*small_body())


@pytest.fixture
def folder(tmp_path: Path, body: StandInBody) -> Path:
    build_skinning_field(body.low, body.skinning_weights, SMALL, progress=False).save(tmp_path)
    return tmp_path


def test_files_are_the_published_ones(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == sorted([WEIGHTS_FILE, *COORDINATE_FILES])
    weights = np.load(folder / "diffused_skinning_weights.npy")
    assert weights.shape == (10, 10, 10, 55) and weights.dtype == np.float32
    assert np.load(folder / "skinning_grid_coords_y.npy").shape == (10,)


def test_a_saved_field_samples_alike(folder: Path, body: StandInBody) -> None:
    made = build_skinning_field(body.low, body.skinning_weights, SMALL, progress=False)
    scale = torch.full((60, 1), 0.05)
    torch.testing.assert_close(
        SkinningField.load(folder).sample(body.low, scale), made.sample(body.low, scale), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("convert", [np.asfortranarray, lambda w: w.astype(np.float64)])
def test_other_layouts_of_the_same_numbers_load(folder: Path, body: StandInBody, convert: Callable) -> None:
    scale = torch.full((60, 1), 0.05)
    expected = SkinningField.load(folder).sample(body.low, scale)
    _edit(convert)(folder / WEIGHTS_FILE)
    torch.testing.assert_close(SkinningField.load(folder).sample(body.low, scale), expected)


def test_writing_to_a_loaded_field_leaves_its_file_alone(folder: Path) -> None:
    before = (folder / WEIGHTS_FILE).read_bytes()
    SkinningField.load(folder).weights.fill_(7)
    assert (folder / WEIGHTS_FILE).read_bytes() == before


def test_the_field_is_not_part_of_a_snapshot() -> None:
    assert not random_field(torch.float32).state_dict()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _edit(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        np.save(path, change(np.load(path)))

    return apply


def _set(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[3, 2, 1, 0] = value
        return array

    return change


@pytest.mark.parametrize(
    ("name", "damage", "complaint"),
    [
        (WEIGHTS_FILE, Path.unlink, "missing"),
        (COORDINATE_FILES[1], Path.unlink, "missing"),
        (WEIGHTS_FILE, _truncate, "cannot be read"),
        (WEIGHTS_FILE, lambda path: path.write_bytes(b""), "cannot be read"),
        (WEIGHTS_FILE, lambda path: np.save(path, np.array([{}]), allow_pickle=True), "cannot be read"),
        (WEIGHTS_FILE, _edit(lambda w: w[..., :54]), "expected \\(10, 10, 10, 55\\)"),
        (WEIGHTS_FILE, _edit(lambda w: w[:9]), "expected \\(10, 10, 10, 55\\)"),
        (WEIGHTS_FILE, _edit(lambda w: w.astype(int)), "floating-point"),
        (WEIGHTS_FILE, _edit(_set(-0.1)), "negative or not finite"),
        (WEIGHTS_FILE, _edit(_set(np.nan)), "negative or not finite"),
        (WEIGHTS_FILE, _edit(_set(np.inf)), "negative or not finite"),
        (COORDINATE_FILES[0], _edit(lambda c: c[::-1]), "increasing"),
        (COORDINATE_FILES[0], _edit(lambda c: c**3), "evenly"),
        (COORDINATE_FILES[2], _edit(lambda c: c[:, None]), "increasing"),
    ],
)
def test_a_damaged_file_is_one_line_that_names_it_and_the_tool(
    folder: Path, name: str, damage: Callable[[Path], object], complaint: str
) -> None:
    damage(folder / name)
    with pytest.raises(UserError, match=complaint) as error:
        SkinningField.load(folder)
    assert "make_skinning_weight.py" in str(error.value)
    assert name in str(error.value) or WEIGHTS_FILE in str(error.value)


def test_the_field_is_made_once(tmp_path: Path, body: StandInBody) -> None:
    first = ensure_skinning_field(tmp_path / "new", body, SMALL, progress=False)
    made = (tmp_path / "new" / WEIGHTS_FILE).stat().st_mtime_ns
    second = ensure_skinning_field(tmp_path / "new", body, SMALL, progress=False)
    assert (tmp_path / "new" / WEIGHTS_FILE).stat().st_mtime_ns == made
    assert torch.equal(first.weights, second.weights)


def test_a_field_of_another_body_is_refused(folder: Path, body: StandInBody) -> None:
    with pytest.raises(UserError, match="another body"):
        ensure_skinning_field(folder, replace(body, low=body.low * 1.01), SMALL)


def test_a_field_with_other_weights_is_refused(folder: Path, body: StandInBody) -> None:
    with pytest.raises(UserError, match="other skinning weights"):
        ensure_skinning_field(folder, replace(body, skinning_weights=body.skinning_weights.flip(0)), SMALL)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"resolution": 12}, "10 x 10 x 10 .* 12 .*--resolution 12"), ({"expansion": 0.2}, "another body or")],
)
def test_a_field_with_other_settings_is_refused(
    folder: Path, body: StandInBody, change: dict, complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        ensure_skinning_field(folder, body, replace(SMALL, **change))


def test_a_field_whose_making_was_killed_is_made_again(folder: Path, body: StandInBody, caplog) -> None:
    """The coordinates are written first and the weights, which take longest, last."""
    whole = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).unlink()
    (folder / COORDINATE_FILES[2]).unlink()
    with caplog.at_level(logging.INFO):
        ensure_skinning_field(folder, body, SMALL, progress=False)
    assert "making the diffused skinning field" in caplog.text
    assert (folder / WEIGHTS_FILE).read_bytes() == whole


def test_a_half_copied_folder_is_refused_and_not_overwritten(folder: Path, body: StandInBody) -> None:
    (folder / COORDINATE_FILES[2]).unlink()
    with pytest.raises(UserError, match=r"skinning_grid_coords_z\.npy missing"):
        ensure_skinning_field(folder, body, SMALL)
    assert not (folder / COORDINATE_FILES[2]).exists()
