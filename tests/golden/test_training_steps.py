"""Two optimisation steps from the published initial state, with the published losses and results (golden 10)."""

from __future__ import annotations

import json

import pytest
import torch

from common.checkpoint import Snapshot
from common.inference import load_person
from common.objective import Objective
from common.trainer import avatar_parameter_groups, make_optimizer
from data.dataset import Subject
from main.config import AvatarConfig, LossConfig, OptimConfig
from tests.golden import scene
from tests.golden.test_losses import published_hand_mesh_mask

ABSENT_AS_ZERO = ("mask_hand", "face_geo")  # the published system lists these as 0 where they do not apply


@pytest.fixture(scope="module")
def run(golden, golden_path, golden_body, golden_field):
    """Losses and gradient norms of both steps, the model after them, and the published record."""
    record = json.loads(golden_path("10_checkpoint/manifest.json").read_text())
    path = golden_path("10_checkpoint/initial_network.pth")
    state = torch.load(path, weights_only=True)
    model = load_person(Snapshot(0, state, None), path, golden_body, golden_field, AvatarConfig())
    model = model.to(scene.DEVICE)
    optim = OptimConfig()
    groups = avatar_parameter_groups(model.persona, optim)
    groups += model.smplx_param_dict.parameter_groups(optim.lr_smplx, optim.lr_hand)
    optimizer = make_optimizer(groups, optim)
    initial = torch.sigmoid(scene.tensor(golden("06_texture_init.npz")["rgb_orig_logit"]))
    objective = Objective(model, LossConfig(), initial, None)
    patch_size = golden("08_losses_fit.npz")["data.face_patch"].shape[-1]
    subject = Subject(golden_path("toy_subject"), patch_size)
    losses, norms, states = [], [], []
    assert record["frames"] == [[step["split"], step["frame_idx"]] for step in record["steps"]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.renders.hand_mesh_mask", published_hand_mesh_mask)
        for step in record["steps"]:
            optimizer.zero_grad(set_to_none=True)
            frame = subject.load(step["split"], step["frame_idx"]).to(scene.DEVICE)
            terms = objective.training(frame)
            torch.stack(list(terms.values())).sum().backward()
            losses.append({name: float(value) for name, value in terms.items()})
            norms.append({k: float(p.grad.norm()) for k, p in model.named_parameters() if p.grad is not None})
            optimizer.step()
            states.append({k: p.detach().clone() for k, p in model.named_parameters()})
    return record, losses, norms, states


@pytest.mark.parametrize(("step", "tolerance"), [(0, 1e-4), (1, 2e-3)])
def test_losses_of_each_step(run, step, tolerance):
    """The second step follows Adam's first, whose size is the learning rate even where the gradient is rounding."""
    record, losses, _, _ = run
    expected = {k: v for k, v in record["steps"][step]["loss"].items() if k not in ABSENT_AS_ZERO or v != 0}
    assert set(losses[step]) == set(expected)
    for name, value in expected.items():
        assert losses[step][name] == pytest.approx(value, rel=tolerance), name


@pytest.mark.parametrize(("step", "tolerance"), [(0, 1e-3), (1, 1e-2)])
def test_gradient_norms_of_each_step(run, step, tolerance):
    """The second step begins where Adam's first has ended: see test_losses_of_each_step."""
    record, _, norms, _ = run
    for name, expected in record["steps"][step]["grad_norm"].items():
        if expected is None or expected < 1e-9:
            assert norms[step].get(name, 0.0) < 1e-8, name
        else:
            assert norms[step][name] == pytest.approx(expected, rel=tolerance), name


@pytest.mark.parametrize(
    ("step", "file", "share"), [(0, "after_step1_network.pth", 0.999), (1, "snapshot_0.pth", 0.98)]
)
def test_parameters_after_each_step(run, golden_path, step, file, share):
    """Nearly all entries end where the published ones did; where the gradient is noise, Adam's sign is too."""
    *_, states = run
    published = torch.load(golden_path(f"10_checkpoint/{file}"), weights_only=True)
    network, optim = published.get("network", published), OptimConfig()
    for name, rate in (
        ("mean_offset", optim.lr),
        ("scale", optim.lr_appearance),
        ("rgb", optim.lr_appearance),
    ):
        near = (states[step][f"persona.{name}"] - network[f"persona.{name}"]).abs() < 0.02 * rate
        assert near.float().mean() > share, name
