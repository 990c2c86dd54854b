"""The one call that splats Gaussians, and the registry of backends behind it (SPEC 10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from common.camera import Camera
from common.gaussians import Gaussians

TILE_PX = 16  # published tiles: they decide which pixels a Gaussian may touch
NEAR_M = 0.2
FILTER_PX2 = 0.1  # variance of the anti-aliasing filter
JACOBIAN_LIMIT = 1.3  # times tan(half field of view)
MIN_DET_PX4 = 1e-6
MAX_ALPHA = 0.99
MIN_ALPHA = 1.0 / 255.0
MIN_TRANSMITTANCE = 1e-4
EPS_COEFFICIENT = 1e-6  # in the opacity compensation, forward and published backward
EPS_CONIC_BACKWARD = 1e-7  # in the published backward of the matrix inverse


@dataclass(frozen=True)
class Splats:
    """One checked rasterizer call: everything a backend needs, tensors of one dtype on one device."""

    mean: Tensor  # (N, 3) world, metres
    scale: Tensor  # (N, 1) or (N, 3) standard deviation, metres
    rotation: Tensor | None  # (N, 4) quaternion w, x, y, z; None: identity
    opacity: Tensor | None  # (N,); None: 1
    camera: Camera
    channels: Tensor  # (N, C)
    is_detached: tuple[bool, ...]  # C flags: the channel sends no gradient to geometry
    background: Tensor  # (C,)

    @property
    def tan_half_fov(self) -> tuple[float, float]:
        """Tangent of half the field of view in x and y, centred on the optical axis."""
        focal_x, focal_y = self.camera.focal.tolist()
        return self.camera.width / (2 * focal_x), self.camera.height / (2 * focal_y)


Backend = Callable[[Splats], Tensor]  # -> image (C, H, W)


def _load_torch() -> Backend:
    from common.rasterizer.torch_backend import render

    return render


def _load_numba() -> Backend:
    from common.rasterizer.numba_backend import render

    return render


def _load_triton() -> Backend:
    from common.rasterizer.triton_loader import render

    return render


_loaders: dict[str, Callable[[], Backend]] = {
    "torch": _load_torch,
    "numba": _load_numba,
    "triton": _load_triton,
}
_default_of_device = {"cpu": "numba", "cuda": "triton"}


def register_backend(name: str, load: Callable[[], Backend], default_for: str | None = None) -> None:
    """Add a backend; `load` imports it on first use. `default_for`: the device type it is "auto" of."""
    _loaders[name] = load
    if default_for is not None:
        _default_of_device[default_for] = name


def backend_names() -> tuple[str, ...]:
    """Names `rasterize` accepts besides "auto"."""
    return tuple(_loaders)


def _check_shapes(gaussians: Gaussians, channels: Tensor) -> None:
    n = gaussians.mean.shape[0]
    assert gaussians.mean.shape == (n, 3), f"mean: {tuple(gaussians.mean.shape)}"
    assert gaussians.scale.shape in ((n, 1), (n, 3)), f"scale: {tuple(gaussians.scale.shape)}"
    assert channels.ndim == 2 and channels.shape[0] == n, f"channels: {tuple(channels.shape)}, {n} Gaussians"
    if gaussians.rotation is not None:
        assert gaussians.rotation.shape == (n, 4), f"rotation: {tuple(gaussians.rotation.shape)}"
    if gaussians.opacity is not None:
        assert gaussians.opacity.shape == (n,), f"opacity: {tuple(gaussians.opacity.shape)}"


def _flags(detached: Tensor | Sequence[bool] | None, n_channels: int) -> tuple[bool, ...]:
    if detached is None:
        return (False,) * n_channels
    flags = detached.tolist() if isinstance(detached, Tensor) else detached
    assert len(flags) == n_channels, f"{len(flags)} detached flags for {n_channels} channels"
    return tuple(bool(flag) for flag in flags)


def rasterize(
    gaussians: Gaussians,
    camera: Camera,
    channels: Tensor,
    detached: Tensor | Sequence[bool] | None = None,
    background: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Splat Gaussians with any number of channels: (C, H, W) (SPEC 10).

    channels (N, C) are blended front to back in place of `gaussians.rgb`, which is not read.
    detached: C flags; a flagged channel sends no gradient to geometry (its gradient to `channels` flows).
    background (C,), default 0, and the camera are constants. Quaternions are normalised here.
    Gradients to mean, scale, rotation, opacity and channels follow the published backward.
    backend: "auto" (numba for CPU tensors, triton for CUDA tensors) or a name of `backend_names()`.
    """
    splats = _splats(gaussians, camera, channels, detached, background)
    return _loaders[_backend_name(splats, backend)]()(splats)


@dataclass(frozen=True)
class Scene:
    """What `rasterize` takes, for `rasterize_together`."""

    gaussians: Gaussians
    camera: Camera
    channels: Tensor  # (N, C)
    detached: Sequence[bool] | None = None


def rasterize_together(scenes: Sequence[Scene], backend: str = "auto") -> list[Tensor]:
    """`rasterize` for several sets of Gaussians or cameras on one device; one call where the backend can do that."""
    splats = [
        _splats(scene.gaussians, scene.camera, scene.channels, scene.detached, None) for scene in scenes
    ]
    name = _backend_name(splats[0], backend)
    if name == "triton":
        from common.rasterizer.triton_loader import render_together

        return render_together(splats)
    return [_loaders[name]()(one) for one in splats]


def _backend_name(splats: Splats, backend: str) -> str:
    name = _default_of_device.get(splats.mean.device.type, "torch") if backend == "auto" else backend
    if name not in _loaders:
        raise ValueError(f"unknown rasterizer backend {name!r}; there are: auto, {', '.join(_loaders)}")
    return name


def _splats(
    gaussians: Gaussians,
    camera: Camera,
    channels: Tensor,
    detached: Tensor | Sequence[bool] | None,
    background: Tensor | None,
) -> Splats:
    """The checked call."""
    _check_shapes(gaussians, channels)
    like = gaussians.mean
    if background is None:
        background = like.new_zeros(channels.shape[1])
    assert background.shape == (channels.shape[1],), f"background: {tuple(background.shape)}"
    constant_camera = camera.to(like.device).to(like.dtype)
    return Splats(
        mean=like,
        scale=gaussians.scale.to(like.dtype),
        rotation=None if gaussians.rotation is None else gaussians.rotation.to(like.dtype),
        opacity=None if gaussians.opacity is None else gaussians.opacity.to(like.dtype),
        camera=Camera(
            R=constant_camera.R.detach(),
            t=constant_camera.t.detach(),
            focal=constant_camera.focal.detach(),
            princpt=constant_camera.princpt.detach(),
            height=camera.height,
            width=camera.width,
        ),
        channels=channels.to(like.dtype),
        is_detached=_flags(detached, channels.shape[1]),
        background=background.detach().to(device=like.device, dtype=like.dtype),
    )
