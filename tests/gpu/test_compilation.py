"""Every kernel compiles for GPUs that are not there, with the very arguments and options that its callers give.

A caller's step is run as in the capture of a CUDA graph, so whatever would end a capture is found as well.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

triton = pytest.importorskip("triton", reason="Triton is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("Triton's interpreter compiles nothing", allow_module_level=True)

import common
from common import gpu
from common.engine.picture_triton import compose, draw_number, write_planes
from common.engine.pictures import draw_image
from common.engine.pose_rows import PoseRow, PoseRows
from common.engine.posing_triton import MIN_CAPABILITY, TritonPosing
from common.engine.static_avatar import StaticAvatar
from common.frame_label import N_DIGITS, digit_coverage
from common.gpu.perceptual import HalfLpips
from common.perceptual import random_lpips
from common.pose_table import pose_of_row
from common.yuv420 import planes_size
from data.packed_frame import StaticFrame, pack
from tests.gpu.dry_device import Capability, dry_device
from tests.rasterizer.scenes import gradients, random_scene
from tests.tiny_person import tiny_avatar, tiny_camera, tiny_model, tiny_objective, tiny_params

HEIGHT, WIDTH = 48, 32
OLD, AMPERE, HOPPER = (7, 5), (8, 0), (9, 0)
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "is_nonzero", "equal"}
FROM_HOST = {"lift_fresh"}  # what torch.tensor(...) of numbers does; on a GPU a copy that waits
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}


class NothingWaits(TorchDispatchMode):
    """Refuses operations that on a GPU wait for the device or copy from the host, and so would end a capture."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = function.overloadpacket.__name__
        if name in WAITING | FROM_HOST:
            raise AssertionError(f"{name} in a captured step")
        if name in INDEXED and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            raise AssertionError(f"{name} by a mask in a captured step")
        return function(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiler's cache that is empty at first."""
    return tmp_path_factory.mktemp("triton")


@pytest.fixture(scope="module")
def launched() -> set[str]:
    """Names of the kernels that the tests of this module have compiled."""
    return set()


def twice(call: Callable[[], object]) -> None:
    """Once to make what is kept, and once as it is captured."""
    call()
    with NothingWaits():
        call()


def rasterize(n_channels: int, is_general: bool) -> None:
    """Forward and backward, and forward alone."""
    scene = random_scene(0, 3000, n_channels, 137, 203, dtype=torch.float32, is_general=is_general)
    gradients(scene, "triton", torch.ones(n_channels, 137, 203), [False] * n_channels)
    scene.render("triton")


@pytest.mark.parametrize(
    ("capability", "n_channels", "is_general"),
    [
        (OLD, 3, True),
        (AMPERE, 16, False),
        (HOPPER, 3, True),
        (HOPPER, 64, False),
    ],
)
def test_the_rasterizer(
    cache: Path, launched: set[str], capability: Capability, n_channels: int, is_general: bool
) -> None:
    with dry_device(capability, cache) as compiled:
        rasterize(n_channels, is_general)
    launched |= compiled.names


@pytest.mark.parametrize("capability", [OLD, HOPPER])
def test_training_steps_and_pose_fits(
    cache: Path, launched: set[str], small_subject: Any, capability: Capability
) -> None:
    """Photos, generated and test frames, without LPIPS, for which these frames are too small."""
    model = tiny_model()
    objective, table = tiny_objective(model), model.smplx_param_dict
    parameters = list(model.persona.parameters())
    rows, keys = table.pack(), list(table.named_frames())

    def step(losses: Callable, static: StaticFrame, place: torch.Tensor) -> None:
        row = rows.index_select(0, place).squeeze(0).detach().requires_grad_()
        with gpu.kernels():
            terms = losses(static.frame, pose_of_row(row))
            total = torch.stack(list(terms.values())).sum()
            torch.autograd.grad(total, [row, *parameters], allow_unused=True)

    with dry_device(capability, cache) as compiled:
        for key, losses in (
            (("captured", 0), objective.training),
            (("generated_0", 2), objective.training),
            (("test", 3), objective.fitting),
        ):
            packed = pack(small_subject.load(*key))
            static, place = StaticFrame(packed, torch.device("cpu")), torch.tensor([keys.index(key)])
            static.fill(packed)
            twice(partial(step, losses, static, place))
    launched |= compiled.names


@pytest.mark.parametrize(("capability", "dtype"), [(OLD, torch.float16), (HOPPER, torch.bfloat16)])
def test_the_perceptual_loss(
    cache: Path, launched: set[str], capability: Capability, dtype: torch.dtype
) -> None:
    """Also with a target whose features are known, and without a gradient."""
    half = HalfLpips(random_lpips("vgg"), 3, dtype)
    x, targets = torch.rand(2, 3, 16, 16, requires_grad=True), list(torch.rand(2, 3, 16, 16))

    def distance() -> None:
        torch.autograd.grad(half(x, targets, [1, 0]).sum(), x)

    with dry_device(capability, cache) as compiled:
        twice(distance)
        half.remember(targets[:1])
        twice(distance)
        with torch.no_grad():
            twice(lambda: half(x, targets, [1, 0]))
    launched |= compiled.names


@pytest.mark.parametrize("capability", [OLD, HOPPER])
@torch.no_grad()
def test_the_engine(cache: Path, launched: set[str], capability: Capability) -> None:
    avatar = tiny_avatar()
    static = StaticAvatar.of(avatar)
    row = PoseRows(avatar).pack([tiny_params(1)], [tiny_camera(HEIGHT, WIDTH)])[0]
    pose = PoseRow.of(row, HEIGHT, WIDTH)
    picture = torch.zeros(HEIGHT, 6 + WIDTH, 3, dtype=torch.uint8)
    background = torch.zeros(HEIGHT, WIDTH, 3, dtype=torch.uint8)
    digits, coverage = torch.zeros(N_DIGITS), torch.from_numpy(digit_coverage(HEIGHT))
    planes = torch.zeros(planes_size(*picture.shape[:2]), dtype=torch.uint8)
    is_broken = torch.zeros(1, dtype=torch.uint8)
    with dry_device(capability, cache) as compiled:
        posing = TritonPosing(static)
        assert (posing.net is static.net) == (capability < MIN_CAPABILITY)

        def draw() -> None:
            image = draw_image(static, posing.mean(pose), pose)
            for behind in (None, background):
                compose(image, behind, picture, 6, is_broken)
            draw_number(picture, picture, digits, coverage)
            write_planes(picture, planes)

        twice(draw)
    launched |= compiled.names


def test_no_kernel_is_left_out(launched: set[str]) -> None:
    """Kernels are those of Triton's functions that ask which program they are, or take a ticket for what they do.

    Run after the tests above.
    """
    kernels = {
        f"{module.__name__}.{name}"
        for module in modules()
        for name, value in vars(module).items()
        if isinstance(value, triton.JITFunction)
        and any(asked in inspect.getsource(value.fn) for asked in ("program_id", "ticket_ptr"))
    }
    assert len(kernels) > 20
    assert kernels == launched


def modules() -> Iterator[Any]:
    """All modules with kernels."""
    for found in pkgutil.walk_packages(common.__path__, "common."):
        if "kernels" in found.name or "triton" in found.name:
            yield importlib.import_module(found.name)
