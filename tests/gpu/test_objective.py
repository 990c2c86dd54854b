"""All losses of a frame, with their gradients, through the GPU's kernels and through the plain functions."""

from __future__ import annotations

import os

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")
HAS_GPU = torch.cuda.is_available()
if not HAS_GPU and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no CUDA device; test_interpreted.py runs these tests", allow_module_level=True)

from common import gpu
from common.boundary import dilate, dilate_by, dilation_kernel_size, dilation_reach
from common.gpu import lookup, mesh, net
from common.losses import depth_loss
from common.pose_table import pose_of_row
from data.packed_frame import StaticFrame, pack
from tests.tiny_person import tiny_model, tiny_objective

DEVICE = torch.device("cuda" if HAS_GPU else "cpu")


@pytest.fixture
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels in larger blocks in the interpreter, which is slow by programs; test_kernels.py has the true ones."""
    blocks = {(lookup, "STENCILS"): 512, (lookup, "BLOCK"): 256, (mesh, "BLOCK"): 256}
    blocks |= {(net, "POINTS"): 256, (net, "ROWS"): 256}
    for place, block in blocks.items():
        if not HAS_GPU:
            monkeypatch.setattr(*place, block)


@pytest.mark.parametrize("key", [("captured", 0), ("generated_0", 2)])
def test_terms_and_gradients_are_the_plain_ones(small_subject, few_programs, key) -> None:
    model = tiny_model().to(DEVICE)
    objective, table = tiny_objective(model), model.smplx_param_dict
    frame = small_subject.load(*key).to(DEVICE)
    named = [(name, p) for name, p in model.persona.named_parameters()]
    plain = objective.training(frame)
    expected = torch.autograd.grad(
        sum(plain.values()), [p for _, p in named], allow_unused=True, retain_graph=True
    )
    pose = dict(table.stored(*key).items())
    of_pose = torch.autograd.grad(sum(plain.values()), list(pose.values()))
    row = table.pack()[list(table.named_frames()).index(key)].clone().requires_grad_()
    static = StaticFrame(pack(small_subject.load(*key)), DEVICE)
    static.fill(pack(small_subject.load(*key)))
    with gpu.kernels():
        terms = objective.training(static.frame, pose_of_row(row))
        *found, d_row = torch.autograd.grad(
            sum(terms.values()), [*(p for _, p in named), row], allow_unused=True
        )
    assert terms.keys() == plain.keys()
    for name, value in plain.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-7), name
    for (name, _), a, b in zip(named, found, expected, strict=True):
        assert (a is None) == (b is None), name
        if b is not None:
            assert (a - b).norm() <= 1e-3 * b.norm(), name
    joined = torch.cat([g.reshape(-1) for g in of_pose])
    assert (d_row - joined).norm() <= 1e-3 * joined.norm()


def test_packed_frames_are_exact(small_subject) -> None:
    for key in (("captured", 0), ("generated_0", 2)):
        frame = small_subject.load(*key)
        static = StaticFrame(pack(frame), DEVICE)
        static.fill(pack(frame))
        for name in (
            "image",
            "mask",
            "depth",
            "normal",
            "seg",
            *(("albedo", "face_patch") * frame.is_captured),
        ):
            assert torch.equal(getattr(static.frame, name).cpu(), getattr(frame, name)), name
        for name in ("camera", "face_camera"):
            found, expected = getattr(static.frame, name), getattr(frame, name)
            assert (found.height, found.width) == (expected.height, expected.width)
            for part in ("R", "t", "focal", "princpt"):
                assert torch.equal(getattr(found, part).cpu(), getattr(expected, part)), (name, part)


@pytest.mark.parametrize("ratio", [0.015, 0.06, 0.3])
def test_dilation_whose_size_only_the_device_knows(ratio: float) -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(1, 40, 30)
    for box in ((0, 0), (1, 2), (17, 9), (40, 30), (33, 1)):
        mask[:] = 0
        mask[:, : box[0], : box[1]] = 1
        start = (torch.rand(1, 40, 30, generator=generator) > 0.98).float()
        expected = dilate(start, dilation_kernel_size(mask, ratio))
        found = dilate_by(start.to(DEVICE), dilation_reach(mask.to(DEVICE), ratio))
        assert torch.equal(found.cpu(), expected), box


def test_depth_loss_without_branches() -> None:
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand(1, 9, 8, generator=generator) + 0.2
    target = torch.rand(1, 9, 8, generator=generator) * (torch.rand(1, 9, 8, generator=generator) > 0.4)
    for a, b in ((depth, target), (depth * 0, target), (depth, target * 0), (depth, depth)):
        leaf, there = a.clone().requires_grad_(), a.clone().to(DEVICE).requires_grad_()
        expected = depth_loss(leaf, b)
        expected.backward()
        with gpu.kernels():
            found = depth_loss(there, b.to(DEVICE))
        found.backward()
        torch.testing.assert_close(found.cpu(), expected)
        torch.testing.assert_close(there.grad.cpu(), leaf.grad)
