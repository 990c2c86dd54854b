"""Which loss terms a frame has and how they are weighted: the table of SPEC 12 put together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from common import gpu, losses
from common.avatar import Avatar, PosedAvatar
from common.body_model.body import BodyModel
from common.gpu.branch import Branch
from common.losses import Perceptual
from common.mesh import laplacian
from common.pose import SmplxPose
from common.renders import (
    BodyRender,
    BoundarySettings,
    PhotoRenders,
    TrainingRenders,
    over,
    render_fit,
    render_training,
)
from common.trainer import Losses, PersonModel
from data.dataset import Frame
from main.config import LossConfig


@dataclass(frozen=True)
class Smoothness:
    """Constants of the Laplacian terms for one body."""

    weight: Tensor  # (N, 1)
    is_kept: Tensor  # (N,) bool: hands, eyes and expression vertices keep the template's detail
    hand: Tensor  # indices of either hand
    mouth_inside: Tensor  # indices
    mouth_outside: Tensor


def make_smoothness(body: BodyModel, config: LossConfig) -> Smoothness:
    """Weights of the Laplacian terms from the body's parts."""
    parts = body.parts_high
    weight = losses.smoothness_weight(
        parts.expression,
        parts.eye,
        parts.hand,
        parts.expression_boundary,
        config.geometry_weight,
        config.geometry_weight_face,
        config.geometry_weight_hand,
    )
    return Smoothness(
        weight,
        parts.hand | parts.eye | parts.expression,
        *(part.nonzero().squeeze(1) for part in (parts.hand, parts.mouth_inside, parts.mouth_outside)),
    )


class Objective:
    """Losses of one frame: `training` for captured and generated frames, `fitting` for test poses."""

    def __init__(
        self,
        model: PersonModel,
        config: LossConfig,
        initial_rgb: Tensor | None,
        perceptual: Perceptual | None,
    ) -> None:
        """initial_rgb (N, 3): activated colours of the initialisation; only `training` needs them."""
        self.model = model
        self.avatar: Avatar = model.persona
        self.body = self.avatar.body
        self.config = config
        self.initial_rgb = initial_rgb
        self.perceptual = perceptual
        self.smoothness = make_smoothness(self.body, config)

    def training(self, frame: Frame, pose: SmplxPose | None = None) -> Losses:
        """All terms of a captured or generated frame; without `pose` the frame's own of the table."""
        pose = pose or self.model.smplx_param_dict.pose(frame.split, frame.index)
        posed = self.avatar(pose, frame.camera)
        renders = self.renders(posed, pose, frame)
        gpu.keep(posed, renders)
        beside = Branch(posed.base_mean, 0)
        with beside.aside():
            geometry = self._geometry_terms(renders, frame)
            others = {**self._part_terms(renders, frame), **self.smoothness_terms(posed, renders)}
            gpu.keep(geometry, others)
        photo = renders.photo
        terms = (
            self._generated_terms(renders, frame)
            if photo is None
            else self._captured_terms(renders, photo, frame)
        )
        beside.join()
        return {**terms, **geometry, **others}

    def renders(self, posed: PosedAvatar, pose: SmplxPose, frame: Frame) -> TrainingRenders:
        """All renders of a captured or generated frame."""
        if self.initial_rgb is None:
            raise ValueError("training needs the initial colours")
        config = self.config
        return render_training(
            posed,
            lambda: self.avatar.body_vertices(pose, frame.camera),
            self.body,
            frame.camera,
            self.initial_rgb,
            frame.face_camera if frame.is_captured else None,
            BoundarySettings(config.boundary_threshold, config.boundary_ratio, config.boundary_ratio_patch),
        )

    def fitting(self, frame: Frame, pose: SmplxPose | None = None) -> Losses:
        """The terms of pose fitting: images and geometry, all with weight 1; `pose` as in `training`."""
        pose = pose or self.model.smplx_param_dict.pose(frame.split, frame.index)
        posed = self.avatar(pose, frame.camera)
        renders = render_fit(posed, self.body, frame.camera)
        images = {
            "img": (_on_photo(renders.base, frame), frame.image),
            "img_refined": (_on_photo(renders.refined, frame), frame.image),
        }
        terms = self._image_losses(images)
        terms["geo"] = self._geometry(renders.base, frame, 1.0)
        terms["geo_refined"] = self._geometry(renders.refined, frame, 1.0)
        return {name: term.mean() for name, term in terms.items()}

    def _image_losses(self, pairs: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        config = self.config
        return losses.image_losses(pairs, self.perceptual, config.l1, config.ssim, config.lpips)

    def _geometry(self, render: BodyRender, frame: Frame, factor: float) -> Tensor:
        return losses.geometry_loss(
            render.mask,
            frame.mask,
            losses.depth_loss(render.depth, frame.depth),
            losses.normal_loss(render.normal, frame.normal),
            losses.part_loss(render.seg, frame.seg),
            factor,
            self.config.depth,
        )

    def _generated_terms(self, renders: TrainingRenders, frame: Frame) -> Losses:
        """Image terms of a generated frame."""
        aux = over(renders.refined.image_aux, renders.refined.mask.detach(), frame.image)
        terms = self._image_losses(
            {
                "img": (_on_photo(renders.base, frame), frame.image),
                "img_refined": (_on_photo(renders.refined, frame), frame.image),
                "img_aux_refined": (aux, frame.image),
            }
        )
        return losses.reduce_terms(terms, self._factors(terms))

    def _geometry_terms(self, renders: TrainingRenders, frame: Frame) -> Losses:
        """Mask, depth, normals and parts of both avatars; weaker on photos."""
        factor = self.config.captured_geometry if frame.is_captured else 1.0
        terms = {
            "geo": self._geometry(renders.base, frame, factor),
            "geo_refined": self._geometry(renders.refined, frame, factor),
        }
        return losses.reduce_terms(terms, self._factors(terms))

    def _captured_terms(self, renders: TrainingRenders, photo: PhotoRenders, frame: Frame) -> Losses:
        """Image and patch terms of a photo; image terms are weakened on its depth boundaries."""
        base, refined, patch, boundaries = renders.base, renders.refined, photo.patch, photo.boundaries
        image, face_patch = frame.image, frame.face_patch
        face_image = over(patch.image, patch.mask, face_patch)
        terms = self._image_losses(
            {
                "img": (_on_photo(base, frame), image),
                "img_albedo": (over(base.image, base.mask, frame.albedo), frame.albedo),
                "img_refined": (_on_photo(refined, frame), image),
                "img_boundary": _boundary_pair(base, image, boundaries.base),
                "img_boundary_refined": _boundary_pair(refined, image, boundaries.refined),
                "patch_face": (face_image, face_patch),
                "patch_face_boundary": losses.boundary_pair(
                    over(patch.image_detached, patch.mask.detach(), face_patch),
                    over(patch.image_aux, patch.mask, face_patch),
                    boundaries.patch,
                ),
            }
        )
        weight = losses.photo_weight(boundaries.base, self.config.boundary)
        for name in ("img", "img_albedo", "img_refined"):
            terms[name] = terms[name] * weight
        terms["patch_face"] = terms["patch_face"] * losses.photo_weight(
            boundaries.patch, self.config.boundary
        )
        terms["patch_mask_face"] = losses.absolute_difference(patch.mask, photo.patch_face_mask)
        terms["patch_face_geo"] = losses.absolute_difference(
            over(patch.image_initial, patch.mask, face_patch), face_patch
        )
        return losses.reduce_terms(terms, self._factors(terms))

    def _part_terms(self, renders: TrainingRenders, frame: Frame) -> Losses:
        """Hands on generated frames, face on photos, eyes on both."""
        face = renders.face
        terms = {"mask_eye": losses.absolute_difference(face.eye_mask, renders.eye_mesh_mask)}
        if frame.is_captured:
            face_image = over(face.image_initial, face.mask, frame.image)
            terms["face_geo"] = losses.absolute_difference(face_image, frame.image)
        else:
            terms["mask_hand"] = losses.absolute_difference(renders.hands.mask, renders.hand_mesh_mask)
        return losses.reduce_terms(terms, self._factors(terms))

    def smoothness_terms(self, posed: PosedAvatar, renders: TrainingRenders) -> Losses:
        """Laplacian terms and the colour priors of hands and mouth."""
        body, avatar, smoothness = self.body, self.avatar, self.smoothness
        rgb = posed.appearance.rgb

        def smooth(x: Tensor) -> Tensor:
            return laplacian(x, body.neighbours_high)

        low_scale = laplacian(posed.scale[: body.n_vertices], body.neighbours_low)
        terms = {
            "lap_mean": losses.lap_mean(
                smooth(posed.base_neutral),
                smooth(avatar.neutral_vertices),
                smoothness.weight,
                smoothness.is_kept,
            ),
            "lap_mean_refined": losses.lap_mean_refined(
                smooth(posed.refined_mean), smoothness.weight, smoothness.is_kept
            ),
            "lap_scale": losses.lap_scale(smooth(posed.scale), low_scale),
            "lap_rgb": losses.lap_rgb(smooth(rgb)),
            "hand_rgb_tv_reg": losses.hand_rgb_tv_reg(renders.hands.image, renders.hands.mask),
            "hand_rgb_reg": losses.hand_rgb_reg(rgb, posed.appearance.rgb_aux, smoothness.hand),
            "mouth_in_rgb_reg": losses.mouth_in_rgb_reg(
                rgb, smoothness.mouth_inside, smoothness.mouth_outside
            ),
        }
        return losses.reduce_terms(terms, self._factors(terms))

    def _factors(self, terms: dict[str, Tensor]) -> dict[str, float]:
        return {name: term_factors(self.config).get(name, 1.0) for name in terms}


def term_factors(config: LossConfig) -> dict[str, float]:
    """Constant factor of each term that has one; all others count once."""
    return {
        "img_refined": config.image_refined,
        "mask_hand": config.hand_mask,
        "patch_face": config.patch,
        "img_boundary": config.boundary_terms,
        "img_boundary_refined": config.boundary_terms,
        "patch_face_boundary": config.boundary_terms * config.patch,
        "patch_mask_face": config.patch,
        "patch_face_geo": config.patch,
        "lap_mean": config.lap_mean,
        "lap_scale": config.lap_scale,
        "lap_rgb": config.lap_rgb,
        "hand_rgb_tv_reg": config.hand_rgb_tv,
    }


def _on_photo(render: BodyRender, frame: Frame) -> Tensor:
    """The rendered person over the frame's own image."""
    return over(render.image, render.mask, frame.image)


def _boundary_pair(render: BodyRender, image: Tensor, boundary: Tensor) -> tuple[Tensor, Tensor]:
    mask = render.mask.detach()
    return losses.boundary_pair(
        over(render.image_detached, mask, image), over(render.image_aux, mask, image), boundary
    )


def total(terms: Losses) -> Tensor:
    """The plain sum of the terms."""
    return torch.stack(list(terms.values())).sum()
