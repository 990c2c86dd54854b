"""What is trained on what: the model, its parameter groups and its frames for training and for pose fitting."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from common.avatar import Avatar
from common.body_model.body import BodyModel
from common.body_model.identity import Identity
from common.in_thread import in_thread
from common.io.kept_array import kept_array
from common.pose_table import PoseTable
from common.skinning_field import SkinningField, read_ahead
from common.snapshot_folder import Found
from common.texture import initial_log_scale, sample_vertex_colors, to_logit
from common.trainer import PersonModel, avatar_parameter_groups
from data.dataset import CAPTURED, TEST, Subject, Textures, fitting_list, training_list
from data.frame import Frame, FrameKey
from main.config import KEPT_SCALES
from main.setup import SubjectArgs, field_folder, load_body, load_field, load_snapshot_person


@dataclass(frozen=True)
class Job:
    """A model and what it is optimised on."""

    model: PersonModel
    parameter_groups: list[dict[str, Any]]
    keys: list[FrameKey]  # the frames of an epoch
    initial_rgb: Tensor | None  # (N, 3) activated colours of the initialisation; None when fitting
    preview: Callable[[], list[Frame]]  # frames that are shown in the log; read when they are asked for


@dataclass(frozen=True)
class Ahead:
    """What of a new avatar is read in threads, ahead of its use."""

    body: Future[BodyModel]
    field: Future[SkinningField] | None  # None: it has to be made

    @staticmethod
    def begin(args: SubjectArgs) -> Ahead:
        """Begin to read."""
        return Ahead(in_thread(load_body, args), read_ahead(field_folder(args)))


def training_job(
    args: SubjectArgs, subject: Subject, device: torch.device, ahead: Ahead | None = None
) -> Job:
    """A new avatar, initialised from the (checked) subject's identity and textures, with its frames' poses."""
    ahead = ahead or Ahead.begin(args)
    body, optim = ahead.body.result(), args.config.optim
    identity = subject.identity_of(body.n_vertices)
    with ThreadPoolExecutor(2) as aside:
        colors = aside.submit(lambda: initial_colors(body, subject.textures()))
        scale = aside.submit(initial_scale, body, identity)
        field = load_field(args, body, ahead.field)  # not aside: it may have to be made, and that be stopped
        avatar = Avatar(args.config.avatar, body, field.to(device), identity)
    with torch.no_grad():
        for name, value in {**colors.result(), "scale": scale.result()}.items():
            getattr(avatar, name).copy_(value)
    poses = PoseTable(subject.smplx_params())
    poses.pack()  # thousands of parameters go to the device in one piece
    model = PersonModel(avatar, poses).to(device)
    keys = training_list(subject, not optim.unbalanced_sampling)
    return Job(
        model,
        avatar_parameter_groups(avatar, optim) + poses.parameter_groups(optim.lr_smplx, optim.lr_hand),
        keys,
        torch.sigmoid(avatar.rgb.detach()).clone(),
        _preview(subject, [(CAPTURED, subject.frames(CAPTURED)[0]), keys[-1]], device),
    )


def initial_scale(body: BodyModel, identity: Identity) -> Tensor:
    """Log scales (N, 1) of the Gaussians, from the neutral mesh with open jaw (SPEC 9); kept for the next start."""
    vertices = body.subdivider.interpolate(body.neutral_vertices(identity, jaw_open=True)).detach().cpu()
    kept = kept_array(KEPT_SCALES, "log_scale", vertices.numpy(), lambda: initial_log_scale(vertices).numpy())
    return torch.from_numpy(kept)


def initial_colors(body: BodyModel, textures: Textures) -> dict[str, Tensor]:
    """Logits (N, 3) of every colour of the Gaussians, from the subject's textures (SPEC 9)."""
    colors = sample_vertex_colors(torch.cat([textures.rgb, textures.rgb_aux, textures.seg]), body)
    return dict(zip(("rgb", "rgb_aux", "seg"), map(to_logit, colors.split(3, dim=1)), strict=True))


def fitting_job(args: SubjectArgs, subject: Subject, found: Found, device: torch.device) -> Job:
    """The avatar of a snapshot, frozen, with the poses of the test frames to be fitted."""
    optim = args.config.optim
    poses = PoseTable(subject.smplx_params((TEST,)))
    model = load_snapshot_person(args, found.snapshot, found.path, poses).to(device)
    model.persona.requires_grad_(False)
    keys = fitting_list(subject, optim.fit_repeats)
    preview = _preview(subject, [(TEST, subject.frames(TEST)[0])], device)
    groups = poses.parameter_groups(optim.lr_smplx, optim.lr_hand)
    return Job(model, groups, keys, None, preview)


def _preview(subject: Subject, keys: list[FrameKey], device: torch.device) -> Callable[[], list[Frame]]:
    return cache(lambda: [subject.load(*key).to(device) for key in keys])
