"""08 to 10: losses, schedule, parameters of frames, two training steps, one of fitting, animation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.avatar import Avatar
from common.body_model.body import BodyModel
from common.checkpoint import Snapshot, network_state, read_snapshot, save_snapshot
from common.inference import load_person
from common.io.image import read_rgb
from common.io.parameters import SMPLX_SHAPES
from common.motion import load_motion
from common.objective import Objective
from common.photo_panel import photo_panel
from common.pose import SmplxParams, SmplxPose
from common.pose_table import PoseTable
from common.renders import over, render_view
from common.skinning_field import SkinningField
from common.trainer import PersonModel, avatar_parameter_groups, make_optimizer
from data.dataset import TEST, Subject, fitting_list, rendering_list, training_list
from data.frame import CAPTURED
from main.config import AnimationConfig, AvatarConfig, LossConfig, OptimConfig
from tests.golden import scene, test_losses
from tests.golden.other_set.folder import OtherSet, plain
from tests.golden.other_set.subject import SUBJECT

OPTIM = OptimConfig()
LOSS_FRAMES = {"captured": ("captured", 0), "generated": ("generated_0", 6), "fit": ("test", 5)}
STEPS = (("captured", 0), ("generated_1", 8))
FITTED = 12  # frame of the first fitting step
N_PICKED = 350  # entries of a long gradient


@contextmanager
def published_hands() -> Iterator[None]:
    """Quirk 1 in the mesh masks of hands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.renders.hand_mesh_mask", test_losses.published_hand_mesh_mask)
        yield


def subject_of(other: OtherSet) -> Subject:
    """The new subject."""
    return Subject(other.path / SUBJECT, other.sizes.patch)


def initial_rgb(other: OtherSet) -> Tensor:
    """Activated colours of the initialisation, float64."""
    return torch.sigmoid(scene.tensor(other.read("06_texture_init.npz")["rgb_orig_logit"])).double()


def make_losses(other: OtherSet, body: BodyModel, field: SkinningField) -> None:
    """08_losses_*, in float64."""
    subject, table = subject_of(other), PoseTable(subject_of(other).smplx_params((*TRAIN, TEST)))
    shapes = {name: value.numel() for name, value in scene.load_avatar(
        body, field, other.read("05_persona_state.npz")).named_parameters()}  # fmt: skip
    for mode, (split, index) in LOSS_FRAMES.items():
        frame, stored = subject.load(split, index), table.stored(split, index)
        data = {
            "img": frame.image,
            "mask": frame.mask,
            "albedo": frame.albedo,
            "face_patch": frame.face_patch,
        }
        data |= {"depth": frame.depth, "normal": frame.normal, "seg": frame.seg}
        for name, camera in (("cam_param", frame.camera), ("cam_param_face", frame.face_camera)):
            data |= {f"{name}.{key}": getattr(camera, key) for key in ("R", "t", "focal", "princpt")}
        arrays: dict[str, Any] = {f"data.{name}": value[None] for name, value in data.items()}
        arrays["data.frame_idx"] = np.array([index])
        arrays |= {f"smplx6d.{name}": value for name, value in stored.items()}
        lengths = shapes | {f"smplx6d.{name}": value.numel() for name, value in stored.items()}
        for name, length in lengths.items():
            picked = other.rng.choice(length, min(length, N_PICKED), replace=False)
            arrays[f"pick.{name}"] = np.sort(picked).astype(np.int32)
        other.write(f"08_losses_{mode}.npz", **arrays)
        other.write_json(f"08_losses_{mode}.json", {"split": split, "frame_idx": index})
        with published_hands():
            case = test_losses.Case(mode, other.read, other.locate, body, field, torch.float64)
        _write_losses(other, case, arrays)


def _write_losses(other: OtherSet, case: test_losses.Case, arrays: dict[str, Any]) -> None:
    terms: dict[str, Any] = {}
    total: dict[str, Any] = {"value": float(sum(value.detach() for value in case.terms.values()))}
    for term, grads in case.term_gradients.items():
        entries, norms = {}, {}
        for name, grad in grads.items():
            is_there = bool((grad != 0).any())
            norms[name] = {"norm": float(grad.norm())} if is_there else None
            picked = case.stored_entries(name, grad)
            if is_there and bool((picked != 0).any()):
                key = f"total.{name}" if term == test_losses.TOTAL else f"term.{term}.{name}"
                entries[key] = picked
        arrays |= entries
        if term == test_losses.TOTAL:
            total["grad"] = norms
        else:
            found = {name: norm for name, norm in norms.items() if norm}
            terms[term] = {"mean": float(case.terms[term].detach()), "grad": found}
    if case.mode != "fit":
        terms |= {name: {"mean": 0.0} for name in ("mask_hand", "face_geo") if name not in terms}
    content = case.expected | {"terms": terms, "total": total}
    content |= {"order_of_terms": list(terms), "groups": list(case.parameters)}
    other.write(f"08_losses_{case.mode}.npz", **arrays)
    other.write_json(f"08_losses_{case.mode}.json", content)


TRAIN = ("captured", "generated_0", "generated_1")


def make_param_dict(other: OtherSet) -> dict[str, Any]:
    """09_smplx_param_dict.npz; returns its part of the schedule."""
    params: dict[str, dict[int, SmplxParams]] = {"captured": {}, "generated_0": {}, "generated_1": {}}
    for split, frame, size in (
        ("captured", 4, 0.5),
        ("generated_0", 2, 0.3),
        ("generated_0", 30, 2.0),
        ("generated_1", 7, 0.8),
        ("generated_1", 9, 0.1),
    ):
        params[split][frame] = SmplxParams(
            **{
                name: torch.from_numpy(other.normal(*shape, size=size))
                for name, shape in SMPLX_SHAPES.items()
            }
        )
    far = params["generated_0"][30].body_pose
    for row, angle in enumerate((0.0, 1e-4, 3.0, 3.6, 6.2)):
        far[row] = torch.nn.functional.normalize(far[row], dim=0) * angle
    table = PoseTable(params)
    exact = PoseTable(params).double()
    arrays: dict[str, Any] = {}
    for split, frames in params.items():
        for frame, values in frames.items():
            out, where = exact.params(split, frame), f"{split}.{frame}"
            arrays |= {f"in.{where}.{name}": value for name, value in vars(values).items()}
            arrays |= {f"stored.{where}.{name}": value for name, value in exact.stored(split, frame).items()}
            arrays |= {f"out.{where}.{name}": getattr(out, name) for name in SMPLX_SHAPES}
    split, frame = "generated_1", 7
    out, loss = exact.params(split, frame), torch.zeros((), dtype=torch.float64)
    for name, shape in SMPLX_SHAPES.items():
        weight = other.normal(*shape)
        arrays[f"gradw.{name}"] = weight
        loss = loss + (getattr(out, name) * torch.from_numpy(weight)).sum()
    loss.backward()
    for name, value in exact.stored(split, frame).items():
        arrays[f"grad.{split}.{frame}.{name}"] = value.grad
    other.write("09_smplx_param_dict.npz", **arrays)
    return {
        "param_dict_state_keys": {key: list(value.shape) for key, value in table.state_dict().items()},
        "param_dict_groups": [
            {"name": group["name"], "lr": group["lr"], "shape": list(group["params"][0].shape)}
            for group in table.parameter_groups(lr=OPTIM.lr_smplx, hand_lr=OPTIM.lr_hand)
        ],
    }


def make_dataset(other: OtherSet) -> None:
    """09_dataset_items.npz."""
    subject, arrays = subject_of(other), {}
    for prefix in ("captured", "generated"):
        losses = other.read(f"08_losses_{prefix}.npz")
        for name, value in losses.items():
            if name.startswith("data.") and name != "data.frame_idx":
                arrays[f"{prefix}.{name.removeprefix('data.')}"] = value[0]
    textures, who = subject.textures(), subject.identity
    arrays |= {"texture": textures.rgb, "texture_gen": textures.rgb_aux, "seg": textures.seg}
    arrays |= {"shape_param": who.shape, "face_offset": who.face_offset, "joint_offset": who.joint_offset}
    other.write("09_dataset_items.npz", **arrays)


def _rows(n_steps: int, first: int, last: int) -> list[list[float]]:
    """Iteration and rates, by the rule of SPEC 13."""
    drop = int(0.75 * OPTIM.n_epochs * n_steps)
    return [
        [i, *(rate * (0.1 if i >= drop else 1.0) for rate in (1e-3, 1e-2, 1e-4))]
        for i in range(first * n_steps, last * n_steps)
    ]


def make_schedule(other: OtherSet, model: PersonModel, of_param_dict: dict[str, Any]) -> None:
    """09_schedule.json."""
    subject = subject_of(other)
    frames = {split: list(params) for split, params in subject.smplx_params().items()}
    globbed = {split: other.rng.permutation(indices).tolist() for split, indices in frames.items()}
    groups = optimizer_of(model).param_groups
    fitted = PoseTable(subject.smplx_params((TEST,))).parameter_groups(OPTIM.lr_smplx, OPTIM.lr_hand)

    def described(group: Mapping[str, Any], lr: float) -> dict[str, Any]:
        return {"name": group["name"], "lr": lr, "shapes": [list(p.shape) for p in group["params"]]}

    n_train, n_fit = len(training_list(subject)), len(fitting_list(subject, OPTIM.fit_repeats))
    adam = {key: value for key, value in torch.optim.Adam(
        [torch.zeros(1)], lr=1e-3, eps=1e-15).param_groups[0].items() if key != "params"}  # fmt: skip
    other.write_json(
        "09_schedule.json",
        {
            "train_list": training_list(subject),
            "test_list": rendering_list(subject),
            "fit_train_list": fitting_list(subject, OPTIM.fit_repeats),
            "fit_test_list": fitting_list(subject),
            "train_smplx_frames": frames,
            "train_smplx_frames_as_globbed": globbed,
            **of_param_dict,
            "train_param_groups": [described(group, group["lr"]) for group in groups],
            "fit_param_groups": [described(group, group["lr"]) for group in fitted],
            "schedule_train": {"rows": _rows(n_train, 0, 5), "itr_per_epoch": n_train},
            "schedule_fit_pose_to_test": {"rows": _rows(n_fit, 1, 5), "itr_per_epoch": n_fit},
            "schedule_7_itr": {"rows": _rows(9, 0, 5), "itr_per_epoch": 9},
            "adam": adam | {"betas": list(adam["betas"])},
        },
    )


def optimizer_of(model: PersonModel) -> torch.optim.Adam:
    """The avatar's groups first; those of frames in any order, as the published system's."""
    frames = model.smplx_param_dict.parameter_groups(OPTIM.lr_smplx, OPTIM.lr_hand)
    return make_optimizer(avatar_parameter_groups(model.persona, OPTIM) + frames[::-1], OPTIM)


def make_checkpoint(other: OtherSet, avatar: Avatar) -> PersonModel:
    """10_checkpoint: two steps in float64; returns the model as the snapshot has it."""
    subject = subject_of(other)
    folder = other.path / "10_checkpoint"
    folder.mkdir()
    model = PersonModel(avatar, PoseTable(subject.smplx_params())).double()
    with torch.no_grad():
        avatar.mean_offset.mul_(0.1)
    torch.save(_float(network_state(model)), folder / "initial_network.pth")
    model.load_state_dict(torch.load(folder / "initial_network.pth"), strict=False)
    optimizer = optimizer_of(model)
    objective, steps = Objective(model, LossConfig(), initial_rgb(other), None), []
    for number, (split, index) in enumerate(STEPS):
        optimizer.zero_grad(set_to_none=True)
        with published_hands():
            terms = objective.training(test_losses.frame_in(subject.load(split, index), torch.float64))
        torch.stack(list(terms.values())).sum().backward()
        losses = {"mask_hand": 0.0, "face_geo": 0.0} | {k: float(v.detach()) for k, v in terms.items()}
        norms = {k: None if p.grad is None else float(p.grad.norm()) for k, p in model.named_parameters()}
        steps.append({"split": split, "frame_idx": index, "loss": losses, "grad_norm": norms})
        optimizer.step()
        if number == 0:
            torch.save(_float(network_state(model)), folder / "after_step1_network.pth")
    network, state = _float(network_state(model)), optimizer.state_dict()
    for values in state["state"].values():
        values.update(_float(values))
    save_snapshot(folder / "snapshot_0.pth", Snapshot(0, network, state))
    groups = [{**group, "betas": list(group["betas"])} for group in state["param_groups"]]
    names = {str(i): group["name"] for group in groups for i in group["params"]}
    described = {
        str(i): {k: [list(v.shape), str(v.dtype)] for k, v in values.items()}
        for i, values in state["state"].items()
    }
    other.write_json(
        "10_checkpoint/manifest.json",
        {
            "top_level": {"epoch": 0, "network": "OrderedDict", "optimizer": "dict"},
            "network": [[key, list(value.shape), str(value.dtype)] for key, value in network.items()],
            "optimizer_param_groups": groups,
            "optimizer_state": described,
            "optimizer_index_to_name": names,
            "optimizer_indices_without_state": [int(i) for i in names if i not in described],
            "steps": steps,
            "frames": [list(step) for step in STEPS],
        },
    )
    return model


def _float(values: Mapping[str, Any]) -> dict[str, Any]:
    """Copies in float32."""
    return {key: value.detach().float().clone() for key, value in values.items()}


def snapshot_in_float64(
    other: OtherSet, body: BodyModel, field: SkinningField, poses: PoseTable | None = None
) -> PersonModel:
    """The model of the snapshot that was written."""
    path = other.path / "10_checkpoint/snapshot_0.pth"
    model = load_person(read_snapshot(path), path, body, field, AvatarConfig(), poses)
    avatar = scene.in_dtype(model.persona, torch.float64)
    return PersonModel(avatar, model.smplx_param_dict.double())


@torch.no_grad()
def make_motion_renders(other: OtherSet, body: BodyModel, field: SkinningField) -> None:
    """10_motion_renders*.npz, truncated to 8 bits as the published ones."""
    avatar = snapshot_in_float64(other, body, field).persona
    motion = load_motion(other.path / "10_motion", with_background=True)
    subject = subject_of(other)
    photo = read_rgb(other.path / SUBJECT / CAPTURED / "images" / f"{subject.frames(CAPTURED)[0]}.png")
    panel = photo_panel(photo.double(), motion.height)
    arrays: dict[str, Any] = {}
    masks: dict[str, Any] = {}
    whites, videos, on_background = [], [], []
    for frame in motion.frames:
        camera = frame.camera.to(torch.float64)
        posed = avatar(SmplxPose.from_params(frame.params.to(torch.float64)), camera)
        as_stored = scene.tensor(plain(posed.refined_mean)).double()
        view = render_view(replace(posed.refined, mean=as_stored), avatar.body, camera)
        white = over(view["image"], view["mask"], 1.0)
        bright = white * view["mask"] + read_rgb(frame.background) * (1 - view["mask"])
        arrays[f"refined_white.{frame.index}"] = white
        arrays |= {
            f"mean_3d.{frame.index}": posed.base_mean,
            f"mean_3d_refined.{frame.index}": posed.refined_mean,
        }
        masks[f"refined_mask.{frame.index}"] = view["mask"].expand(3, -1, -1)
        whites.append(_truncated(white).transpose(2, 0, 1))
        videos.append(_truncated(torch.cat([panel, white], 2))[..., ::-1])
        on_background.append(_truncated(torch.cat([panel, bright], 2))[..., ::-1])
    shared = {
        "video_size_wh": np.array([panel.shape[2] + motion.width, motion.height]),
        "fps": np.array(AnimationConfig().fps),
        "frame_idx": np.array([frame.index for frame in motion.frames]),
    }
    arrays |= {"loaded_shape_param": avatar.shape_param, "loaded_joint_offset": avatar.joint_offset}
    arrays |= {"refined_uint8_rgb": np.stack(whites), "video_frames_bgr_uint8": np.stack(videos)}
    other.write("10_motion_renders.npz", **arrays, **shared)
    masks["video_frames_bgr_uint8"] = np.stack(on_background)
    other.write("10_motion_renders_bkg.npz", **masks, **shared)


def _truncated(image: Tensor) -> np.ndarray:
    """(H, W, 3) uint8."""
    return (image.clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).numpy()


def make_fit_step(other: OtherSet, body: BodyModel, field: SkinningField) -> None:
    """10_fit_step.npz."""
    subject = subject_of(other)
    poses = PoseTable(subject.smplx_params((TEST,)))
    arrays: dict[str, Any] = {f"before.{k}": plain(v) for k, v in poses.state_dict().items()}
    model = snapshot_in_float64(other, body, field, poses)
    model.persona.requires_grad_(False)
    poses = model.smplx_param_dict
    optimizer = make_optimizer(poses.parameter_groups(OPTIM.lr_smplx, OPTIM.lr_hand), OPTIM)
    frame = test_losses.frame_in(subject.load(TEST, FITTED), torch.float64)
    terms = Objective(model, LossConfig(), None, None).fitting(frame)
    torch.stack(list(terms.values())).sum().backward()
    arrays |= {f"loss.{name}": value for name, value in terms.items()}
    arrays |= {f"grad.{k}": p.grad for k, p in poses.named_parameters() if p.grad is not None}
    optimizer.step()
    arrays |= {f"after.{k}": v for k, v in poses.state_dict().items()}
    other.write("10_fit_step.npz", start_epoch=np.array(1), **arrays)
