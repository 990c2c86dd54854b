"""Adam on rows of poses against torch's Adam on every parameter by itself, with its state dict."""

from __future__ import annotations

import pytest
import torch

from common.fast_adam import AvatarAdam, PoseAdam
from common.optimizer import PersonAdam
from common.pose_table import PoseTable, pose_of_row
from tests.test_pose_table import _params

KEYS = [("captured", 0), ("generated_0", 2), ("generated_0", 10)]


def table() -> PoseTable:
    return PoseTable({"captured": {0: _params(0)}, "generated_0": {10: _params(1), 2: _params(2)}})


def loss(pose) -> torch.Tensor:
    return pose.rotation.pow(3).sum() + pose.expr.square().sum() + (pose.trans - 1).square().sum()


def plain_steps(poses: PoseTable, optimizer: PersonAdam, keys: list, factor: float) -> None:
    for key in keys:
        for group in optimizer.param_groups:
            group["lr"] = factor * (1e-4 if "hand" in group["name"] else 1e-3)
        optimizer.zero_grad(set_to_none=True)
        loss(poses.pose(*key)).backward()
        optimizer.step()


def test_rows_move_as_with_an_optimiser_for_each_parameter_and_states_go_over() -> None:
    """Also from a state that torch's Adam left, and with a step that is left out."""
    plain, rows_table = table(), table()
    optimizers = [
        PersonAdam(poses.parameter_groups(1e-3, 1e-4), lr=0.0, eps=1e-15) for poses in (plain, rows_table)
    ]
    for poses, optimizer in zip((plain, rows_table), optimizers, strict=True):
        plain_steps(poses, optimizer, [KEYS[1], KEYS[1], KEYS[2]], 1.0)
    base_lr = {
        group["name"]: 1e-4 if "hand" in group["name"] else 1e-3 for group in optimizers[1].param_groups
    }
    rows = rows_table.pack()
    adam = PoseAdam(optimizers[1], rows_table, rows, base_lr)
    adam.set_rates(0.1)
    order = list(rows_table.named_frames())
    for key in (KEYS[1], KEYS[0], KEYS[1]):
        index = torch.tensor([order.index(key)])
        row = rows[index[0]].clone().requires_grad_()
        loss(pose_of_row(row)).backward()
        adam.step(index, row.grad, torch.ones(1))  # left out
        adam.step(index, row.grad, torch.zeros(1))
    plain_steps(plain, optimizers[0], [KEYS[1], KEYS[0], KEYS[1]], 0.1)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(rows_table.state_dict()[name], value, atol=1e-7, rtol=1e-6)
    expected, found = optimizers[0].state_dict()["state"], adam.state()
    assert found.keys() == expected.keys()
    for place, entries in expected.items():
        for name, value in entries.items():
            torch.testing.assert_close(found[place][name], value, atol=1e-7, rtol=1e-5)
    assert len(found) == 9 * len(KEYS)


def test_fused_adam_of_an_avatar_is_torch_s_and_leaves_out_steps_and_parameters_without_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(5, 3, generator=generator) for _ in range(3)]
    plain, fused = ([torch.nn.Parameter(value.clone()) for value in start] for _ in range(2))
    base_lr = {"a": 1e-2, "b": 1e-3}
    optimizers = [
        PersonAdam([{"name": "a", "params": p[:1]}, {"name": "b", "params": p[1:]}], lr=0.0, eps=1e-15)
        for p in (plain, fused)
    ]
    adam = AvatarAdam(optimizers[1], optimizers[1].param_groups, base_lr)
    for step, factor in enumerate((1.0, 1.0, 0.1)):
        grads = [torch.randn(5, 3, generator=generator) for _ in range(3)]
        for parameter, grad in zip(plain, grads, strict=True):
            parameter.grad = grad
        if step == 1:
            plain[2].grad, grads[2] = None, None
        for group in optimizers[0].param_groups:
            group["lr"] = factor * base_lr[group["name"]]
        optimizers[0].step()
        adam.set_rates(factor)
        adam.step(grads, torch.ones(1))  # left out
        adam.step(grads, torch.zeros(1))
    for a, b in zip(plain, fused, strict=True):
        torch.testing.assert_close(b, a, atol=1e-7, rtol=1e-6)
    expected, found = optimizers[0].state_dict()["state"], adam.state()
    assert found.keys() == expected.keys()
    for place, entries in expected.items():
        for name, value in entries.items():
            torch.testing.assert_close(found[place][name], value, atol=1e-8, rtol=1e-5)


def test_steps_are_those_of_the_adam_of_torch() -> None:
    """Which is called without what torch wraps around it for its compiler."""
    values = [torch.linspace(-1, 1, 6).requires_grad_() for _ in range(2)]
    for kind, value in zip((PersonAdam, torch.optim.Adam), values, strict=True):
        optimizer = kind([{"params": [value], "lr": 0.1}], lr=0.0)
        for _ in range(3):
            optimizer.zero_grad(set_to_none=True)
            (value**3).sum().backward()
            optimizer.step()
        assert not value.grad.requires_grad
    assert torch.equal(*values)


def test_no_parameter_is_in_two_groups() -> None:
    values = [torch.nn.Parameter(torch.zeros(3)) for _ in range(4)]
    groups = [{"name": str(i), "params": [value]} for i, value in enumerate(values)]
    optimizer = PersonAdam(groups, lr=0.1)
    assert [group["name"] for group in optimizer.param_groups] == ["0", "1", "2", "3"]
    assert all(group["params"][0] is values[i] for i, group in enumerate(optimizer.param_groups))
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}
    with pytest.raises(ValueError, match="more than one"):
        optimizer.add_param_group({"params": values[3:]})
    with pytest.raises(ValueError, match="more than one"):
        PersonAdam([groups[0], {"params": values[:1]}], lr=0.1)
    assert len(optimizer.param_groups) == 4
