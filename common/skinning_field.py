"""Diffused skinning field: skinning weights around the body, looked up for every Gaussian (SPEC 8, 18)."""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from common import gpu
from common.body_model.body import BodyModel
from common.constants import constant
from common.errors import UserError
from common.in_thread import in_thread
from common.io.array import open_array
from common.io.atomic import atomic_path
from common.joints import N_JOINTS
from common.skinning_lookup import look_up_cpu, look_up_torch
from main.config import FieldConfig

logger = logging.getLogger(__name__)

N_DIFFUSED = 25  # joints 0..24; the 30 finger joints after them keep the fixed points' values (SPEC 8)
DIFFUSION_RATE = 0.1
PAIRS_AT_ONCE = 2_000_000  # of a vertex and a grid point around it
CHECKED_POINTS = 300  # of a file, to see whose it is
BOX_TOLERANCE_M = 1e-4  # between the grid of a file and the one computed from the body
WEIGHTS_FILE = "diffused_skinning_weights.npy"  # (D, D, D, 55) float32
COORDINATE_FILES = tuple(f"skinning_grid_coords_{axis}.npy" for axis in "xyz")  # (D,) metres
TOOL = "tools/diffused_skinning_weights/make_skinning_weight.py"


class SkinningField(nn.Module):
    """Skinning weights on a regular grid around the neutral body, with smoothed trilinear lookups."""

    weights: Tensor  # (X, Y, Z, J) >= 0
    lower: Tensor  # (3,) metres, position of grid point (0, 0, 0)
    upper: Tensor  # (3,) metres, position of the last grid point

    def __init__(self, weights: Tensor, lower: Tensor, upper: Tensor) -> None:
        super().__init__()
        if weights.ndim != 4 or min(weights.shape[:3]) < 2 or lower.shape != (3,) or upper.shape != (3,):
            shapes = f"{tuple(weights.shape)}, {tuple(lower.shape)}, {tuple(upper.shape)}"
            raise ValueError(f"weights (X, Y, Z, J), lower (3,), upper (3,) expected, got {shapes}")
        for name, value in (("weights", weights), ("lower", lower), ("upper", upper)):
            self.register_buffer(name, value, persistent=False)

    def sample(self, mean: Tensor, scale: Tensor) -> Tensor:
        """Skinning weights (N, J) of Gaussians at mean (N, 3) with standard deviation scale (N, 1), metres.

        L1-normalised mean of 13 samples: the centre and one and two standard deviations along each axis.
        Gradients reach the mean only. Samples outside the grid count zero, unless the centre itself is
        outside: then all samples of that Gaussian are clamped to the border (SPEC 18).
        """
        if mean.ndim != 2 or mean.shape[1] != 3 or scale.shape != (mean.shape[0], 1):
            raise ValueError(
                f"mean (N, 3) and scale (N, 1) expected, got {tuple(mean.shape)}, {tuple(scale.shape)}"
            )
        if mean.dtype != self.weights.dtype:
            raise ValueError(f"mean is {mean.dtype}, the field is {self.weights.dtype}")
        last = constant(tuple(float(count - 1) for count in self.weights.shape[:3]), mean)
        cells_per_metre = last / (self.upper - self.lower)
        points = (mean - self.lower) * cells_per_metre
        steps = scale.detach() * cells_per_metre
        if gpu.is_on(mean):
            from common.gpu.lookup import look_up_normalised

            return look_up_normalised(self.weights, points, steps)
        look_up = look_up_cpu if mean.device.type == "cpu" else look_up_torch
        # No weight is negative: the clamp at 0 changes nothing; the mean is a weighted sum of grid points.
        return F.normalize(look_up(self.weights, points, steps), p=1.0, dim=1)

    def save(self, folder: Path) -> None:
        """Write the four published files into `folder`, each complete or not at all, the weights last."""
        for axis, name in enumerate(COORDINATE_FILES):
            count = self.weights.shape[axis]
            coordinates = np.linspace(float(self.lower[axis]), float(self.upper[axis]), count)
            _save_array(folder / name, coordinates.astype(np.float32))
        _save_array(folder / WEIGHTS_FILE, self.weights.float().cpu().numpy())

    @classmethod
    def load(cls, folder: Path) -> SkinningField:
        """Read the four published files; the weights stay mapped to their file (copied on write)."""
        missing = [name for name in (WEIGHTS_FILE, *COORDINATE_FILES) if not (folder / name).is_file()]
        if missing:
            raise UserError(f"{folder}: {', '.join(missing)} missing; {remedy(folder)}")
        coordinates = [_read_coordinates(folder / name) for name in COORDINATE_FILES]
        weights = _read_array(folder / WEIGHTS_FILE)
        shape = tuple(len(c) for c in coordinates)
        if weights.ndim != 4 or weights.shape[:3] != shape or weights.shape[3] != N_JOINTS:
            expected = (*shape, N_JOINTS)
            raise UserError(
                f"{folder / WEIGHTS_FILE} has shape {weights.shape}, expected {expected}; {remedy(folder)}"
            )
        with ThreadPoolExecutor() as readers:
            if not all(readers.map(_are_weights, weights)):
                raise UserError(
                    f"{folder / WEIGHTS_FILE} holds negative or not finite numbers; {remedy(folder)}"
                )
        lower, upper = (torch.tensor([c[end] for c in coordinates]) for end in (0, -1))
        return cls(torch.from_numpy(weights), lower, upper)


def remedy(folder: Path, settings: FieldConfig | None = None) -> str:
    """What to do about a bad field: the command that makes it."""
    settings = settings or FieldConfig()
    command = f"python {TOOL} --output {folder}"
    if settings.resolution != FieldConfig.resolution:
        command += f" --resolution {settings.resolution}"
    if settings.expansion != FieldConfig.expansion:
        command += f" --expansion {settings.expansion}"
    return f"make it again: {command} (for the demo body add --human_model_path data/demo_body)"


def _save_array(path: Path, array: np.ndarray) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def _read_array(path: Path) -> np.ndarray:
    """A float32 array, mapped from its file if it is float32 there; writing to it never changes the file."""
    try:
        array = open_array(path, mode="c")
    except UserError as error:
        raise UserError(f"{path} cannot be read ({error}); {remedy(path.parent)}") from error
    if array.dtype.kind != "f":
        raise UserError(f"{path} is not an array of floating-point numbers; {remedy(path.parent)}")
    with np.errstate(over="ignore"):  # becomes infinite and is refused later
        return np.ascontiguousarray(array, np.float32)


def _are_weights(slab: np.ndarray) -> bool:
    return bool(slab.min() >= 0 and slab.max() < np.inf)  # also false for NaN


def _read_coordinates(path: Path) -> np.ndarray:
    values = np.array(_read_array(path))
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all() or values[-1] <= values[0]:
        raise UserError(f"{path} is not a list of increasing coordinates; {remedy(path.parent)}")
    if np.abs(values - np.linspace(values[0], values[-1], len(values))).max() > BOX_TOLERANCE_M:
        raise UserError(f"{path} is not evenly spaced; {remedy(path.parent)}")
    return values


def read_ahead(folder: Path) -> Future[SkinningField] | None:
    """Begin to load the field of a folder in a thread; None if there is none yet."""
    return in_thread(SkinningField.load, folder) if _is_complete(folder) else None


def _is_complete(folder: Path) -> bool:
    return (folder / WEIGHTS_FILE).is_file()  # which is written last


def ensure_skinning_field(
    folder: Path,
    body: BodyModel,
    settings: FieldConfig,
    progress: bool = True,
    device: torch.device | str = "cpu",
    ahead: Future[SkinningField] | None = None,
) -> SkinningField:
    """The field of the neutral `body` from `folder`; built on `device` and saved if there is none yet (SPEC 8).

    ahead: what `read_ahead` of the folder gave.
    """
    vertices = body.neutral_vertices(None, jaw_open=False).detach()
    if not _is_complete(folder):
        logger.info("making the diffused skinning field in %s (once)", folder)
        weights = body.skinning_weights.to(device)
        build_skinning_field(vertices.to(device), weights, settings, progress).save(folder)
    field = SkinningField.load(folder) if ahead is None else ahead.result()
    check_belongs(field, vertices, body.skinning_weights, settings, folder)
    return field


def check_belongs(
    field: SkinningField, vertices: Tensor, weights: Tensor, settings: FieldConfig, folder: Path
) -> None:
    """UserError unless the field was made so from these neutral vertices (V, 3) and weights (V, 55)."""
    shape = tuple(field.weights.shape[:3])
    if set(shape) != {settings.resolution}:
        sizes = " x ".join(map(str, shape))
        raise UserError(
            f"the skinning field in {folder} has {sizes} grid points, the settings ask for "
            f"{settings.resolution} along each axis; {remedy(folder, settings)}"
        )
    lower, upper = (corner.cpu().float() for corner in grid_corners(vertices, settings.expansion))
    difference = max(float((field.lower - lower).abs().max()), float((field.upper - upper).abs().max()))
    if difference > BOX_TOLERANCE_M:
        raise UserError(
            f"the skinning field in {folder} belongs to another body or expansion (its box is off by "
            f"{difference:.3g} m); {remedy(folder, settings)}"
        )
    # Grid points close to the surface hold the weights of their nearest vertex.
    points, cell = vertices.detach().cpu().double(), (upper - lower).double() / (settings.resolution - 1)
    nodes = ((points[:: -(-len(points) // CHECKED_POINTS)] - lower) / cell).round()
    exactly = "donot_use_mm_for_euclid_dist"
    distance, owner = torch.cdist(lower + nodes * cell, points, compute_mode=exactly).min(1)
    is_near = distance < settings.threshold_m
    stored = field.weights[tuple(nodes[is_near].long().T)].cpu()
    is_same = (stored - weights.cpu()[owner[is_near]]).abs().amax(1) < 1e-3
    if is_near.any() and is_same.float().mean() < 0.9:  # a few ties and rounding at the threshold are fine
        raise UserError(
            f"the skinning field in {folder} has other skinning weights than the body or another threshold; "
            f"{remedy(folder, settings)}"
        )


def build_skinning_field(
    vertices: Tensor, weights: Tensor, settings: FieldConfig, progress: bool = True
) -> SkinningField:
    """Diffuse the skinning weights (V, 55) of the neutral vertices (V, 3) into a grid (SPEC 8)."""
    lower, upper = grid_corners(vertices, settings.expansion)
    shape = (settings.resolution,) * 3
    is_fixed, fixed_weights = _fixed_points(vertices, weights, lower, upper, settings)
    n_diffused = min(N_DIFFUSED, weights.shape[1])
    channels = torch.zeros(n_diffused, *shape, device=weights.device)
    channels[:, is_fixed] = fixed_weights[:, :n_diffused].T
    steps = tqdm(range(settings.n_iterations), desc="skinning field", disable=not progress)
    channels = (_diffuse_cpu if channels.device.type == "cpu" else _diffuse_torch)(channels, is_fixed, steps)
    table = torch.zeros(*shape, weights.shape[1], device=weights.device)
    table[is_fixed] = fixed_weights
    for slab, diffused in zip(table, channels.unbind(1), strict=True):  # slab by slab, to bound memory
        slab[..., :n_diffused] = diffused.movedim(0, -1)
        slab.clamp_(min=0)
        slab /= slab.sum(-1, keepdim=True) + 1e-8
    return SkinningField(table, lower, upper)


def grid_corners(vertices: Tensor, expansion: float) -> tuple[Tensor, Tensor]:
    """First and last grid point (3,): the bounding box grown by `expansion` of its size on every side."""
    lower, upper = vertices.detach().amin(0), vertices.detach().amax(0)
    margin = expansion * (upper - lower)
    return lower - margin, upper + margin


def _fixed_points(
    vertices: Tensor, weights: Tensor, lower: Tensor, upper: Tensor, settings: FieldConfig
) -> tuple[Tensor, Tensor]:
    """Which grid points (D, D, D) are near a vertex, and the nearest one's weights (n_fixed, 55), in the same order."""
    d, threshold, device = settings.resolution, settings.threshold_m, weights.device
    axes = [np.linspace(a, b, d) for a, b in zip(lower.tolist(), upper.tolist(), strict=True)]
    x, y, z = (torch.from_numpy(axis).to(device) for axis in axes)
    first, step = torch.stack([x[0], y[0], z[0]]), torch.stack([x[1] - x[0], y[1] - y[0], z[1] - z[0]])
    reach = [min(int(threshold / size) + 1, d) for size in step.tolist()]
    around = torch.cartesian_prod(*[torch.arange(-r, r + 1, device=device) for r in reach])
    nearest = torch.full((d**3,), torch.inf, dtype=torch.float64, device=device)
    owner = torch.full((d**3,), len(vertices), device=device)
    positions = vertices.detach().to(device).double()
    centre = ((positions - first) / step).round().long()
    for start in range(0, len(positions), max(1, PAIRS_AT_ONCE // len(around))):  # bounds memory
        part = slice(start, start + max(1, PAIRS_AT_ONCE // len(around)))
        index = centre[part, None] + around
        vertex, place = ((index >= 0) & (index < d)).all(2).nonzero(as_tuple=True)
        i, j, k = index[vertex, place].unbind(1)
        distance = (torch.stack([x[i], y[j], z[k]], 1) - positions[start + vertex]).norm(dim=1)
        near = (distance < threshold).nonzero().squeeze(1)
        point, distance, vertex = ((i * d + j) * d + k)[near], distance[near], start + vertex[near]
        before = nearest[point]
        nearest.scatter_reduce_(0, point, distance, "amin")
        owner[point[nearest[point] < before]] = len(vertices)
        is_nearest = distance == nearest[point]
        owner.scatter_reduce_(0, point[is_nearest], vertex[is_nearest], "amin")
    is_fixed = nearest < torch.inf
    return is_fixed.view(d, d, d), weights.detach()[owner[is_fixed]].float()


def _diffuse_cpu(channels: Tensor, is_fixed: Tensor, steps: tqdm) -> Tensor:
    from common import skinning_kernels
    from common.rasterizer.numba_threads import torch_threads

    other = torch.empty_like(channels)
    for _ in steps:
        with torch_threads():
            skinning_kernels.diffuse(channels.numpy(), other.numpy(), is_fixed.numpy(), DIFFUSION_RATE)
        channels, other = other, channels
    return channels


def _diffuse_torch(channels: Tensor, is_fixed: Tensor, steps: tqdm) -> Tensor:
    for _ in steps:
        padded = F.pad(channels, (1,) * 6, mode="replicate")
        laplacian = -6 * channels
        for dim in (1, 2, 3):
            for start in (0, 2):
                inner = [
                    slice(1, -1) if k != dim else slice(start, start + channels.shape[k]) for k in (1, 2, 3)
                ]
                laplacian += padded[(slice(None), *inner)]
        channels = torch.where(is_fixed, channels, channels + DIFFUSION_RATE * laplacian)
    return channels
