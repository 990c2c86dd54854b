"""Replacements for operations that do not repeat on a GPU: the same results, and none of those operations left."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from common import determinism, skinning_field
from common.determinism import LargestOfFour, replace_pools, sample_planes
from common.perceptual import Lpips
from common.rasterizer import interface
from common.skinning_lookup import look_up_torch
from tests.rasterizer.scenes import gradients, random_scene
from tests.tiny_person import tiny_model, tiny_objective

# Operations that torch.use_deterministic_algorithms refuses on CUDA (its documentation).
REFUSED = (
    "adaptive_avg_pool2d_backward", "adaptive_avg_pool3d_backward", "adaptive_max_pool2d_backward",
    "avg_pool3d_backward", "fractional_max_pool2d_backward", "grid_sampler_2d_backward",
    "grid_sampler_3d_backward", "histc", "kthvalue", "max_pool2d_with_indices_backward",
    "max_pool3d_with_indices_backward", "max_unpool2d", "nll_loss2d_forward", "put_",
    "reflection_pad1d_backward", "reflection_pad2d_backward", "replication_pad1d_backward",
    "replication_pad2d_backward", "replication_pad3d_backward", "upsample_bicubic2d_backward",
    "upsample_bilinear2d_backward", "upsample_linear1d_backward", "upsample_trilinear3d_backward",
    "_ctc_loss_backward", "_embedding_bag_dense_backward",
)  # fmt: skip


class Operations(TorchDispatchMode):
    """Notes which operations run, those of backward passes included."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        is_floating = isinstance(result, torch.Tensor) and result.is_floating_point()
        self.names.add(f"floating {name}" if name == "cumsum" and is_floating else name)
        return result


def operations_of(work: Callable[[], None]) -> set[str]:
    with Operations() as noted:
        work()
    return noted.names


@pytest.mark.parametrize("split", ["captured", "generated_0"])
def test_no_operation_of_a_step_leaves_the_order_of_its_sums_to_a_gpu(small_subject, split, monkeypatch):
    objective = tiny_objective(tiny_model())
    frame = small_subject.load(split, small_subject.frames(split)[0])
    monkeypatch.setattr(skinning_field, "look_up_cpu", look_up_torch)  # as on a GPU

    def step() -> None:
        torch.stack(list(objective.training(frame).values())).sum().backward()

    assert "grid_sampler_2d_backward" in operations_of(step)
    monkeypatch.setattr(determinism, "needs_fixed_order", lambda tensor: True)
    assert not operations_of(step) & {*REFUSED, "floating cumsum"}


def test_no_operation_of_the_perceptual_loss_does_so_either():
    lpips, images = Lpips("vgg"), torch.rand(2, 1, 3, 32, 32)

    def step() -> None:
        lpips(images[0].clone().requires_grad_(), images[1]).sum().backward()

    assert "max_pool2d_with_indices_backward" in operations_of(step)
    replace_pools(lpips)
    assert not operations_of(step) & set(REFUSED)


def test_planes_are_sampled_as_by_grid_sample_with_the_same_gradient():
    torch.manual_seed(0)
    planes = torch.randn(3, 5, 7, 9, dtype=torch.float64, requires_grad=True)
    points = torch.rand(3, 200, 2, dtype=torch.float64) * 2.6 - 1.3
    weight = torch.randn(3, 5, 200, dtype=torch.float64)
    expected = F.grid_sample(planes, points[:, :, None], mode="bilinear", align_corners=False).squeeze(3)
    found = sample_planes(planes, points)
    assert_close(found, expected)
    gradients = [torch.autograd.grad((value * weight).sum(), planes)[0] for value in (found, expected)]
    assert_close(*gradients)


@pytest.mark.parametrize("size", [(8, 6), (9, 7)])
def test_pooling_takes_the_same_values_and_gradients(size):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, requires_grad=True)
    pooled = [layer(x) for layer in (LargestOfFour(), nn.MaxPool2d(2, 2))]
    assert torch.equal(*pooled)
    weight = torch.randn_like(pooled[0])
    assert torch.equal(*(torch.autograd.grad((value * weight).sum(), x)[0] for value in pooled))


def test_perceptual_loss_is_the_same_with_its_pools_replaced():
    torch.manual_seed(0)
    lpips = Lpips("vgg")
    images = torch.rand(2, 1, 3, 40, 33)
    before = lpips(*images)
    replace_pools(lpips)
    assert not [layer for layer in lpips.modules() if isinstance(layer, nn.MaxPool2d)]
    assert torch.equal(lpips(*images), before)


def test_rasterizer_on_the_host_is_the_cpu_s(monkeypatch):
    monkeypatch.setitem(interface._loaders, "host", determinism._load_host_backend)
    scene = random_scene(0)
    weight = torch.randn(scene.channels.shape[1], scene.camera.height, scene.camera.width)
    (image, found), (expected_image, expected) = (
        gradients(scene, name, weight) for name in ("host", "numba")
    )
    assert torch.equal(image, expected_image) and found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
