"""Every hyper-parameter, once, with its unit and source. Frozen values, no side effects."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Gender = Literal["neutral", "male", "female"]
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class BodyConfig:
    """Which body model is used (SPEC 7)."""

    gender: Gender = "male"  # the published system always uses the male file
    field_gender: Gender = "neutral"  # the diffused skinning field is made from the neutral file (SPEC 8)
    n_subdivisions: int | None = None  # None: 2 as published; 1 for the small demo; inference: the snapshot's


@dataclass(frozen=True)
class FieldConfig:
    """The diffused skinning field (SPEC 8)."""

    resolution: int = 128  # grid points per axis
    n_iterations: int = 100  # diffusion steps
    threshold_m: float = 0.02  # grid points nearer than this to a vertex stay fixed, metres
    expansion: float = 0.3  # bounding box growth on every side, fraction of its size


@dataclass(frozen=True)
class AvatarConfig:
    """Shape of the avatar's learned parts (SPEC 9)."""

    triplane_channels: int = 32  # features of each plane
    triplane_resolution: int = 128  # texels along each side of a plane
    triplane_extent_m: float = 2.0  # side of the cube that the planes cover, metres
    n_hidden: int = 128  # width of the offset net
    n_groups: int = 4  # GroupNorm groups
    offset_divisor: float = 100.0  # net output / this = metres
    without_pose_offsets: bool = False  # ablation: the refined avatar is the base avatar
    without_aux_rgb: bool = False  # ablation: the avatar's own colour serves as the auxiliary one


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms (SPEC 12); a term's conditions are in common/losses.py and common/objective.py."""

    l1: float = 0.8  # |x - y| in the image terms
    ssim: float = 0.2  # 1 - SSIM in the image terms
    lpips: float = 1.0  # LPIPS in the image terms
    boundary: float = 0.1  # factor of the image terms on the photo where the boundary map is 1
    captured_geometry: float = 0.1  # factor of depth, normals and parts on the photo
    depth: float = 0.01  # depth in the geometry terms; normals, parts and mask have 1
    boundary_terms: float = 1.0  # the terms on the boundary itself; ablation: 0
    image_refined: float = 0.1  # image of the refined avatar; 1 when poses are fitted
    hand_mask: float = 50.0  # rendered hand masks against the mesh's
    patch: float = 0.1  # all terms of the face patch
    lap_mean: float = 10.0  # smoothness of mean_offset
    lap_scale: float = 1e6  # smoothness of the Gaussians' sizes
    lap_rgb: float = 0.1  # smoothness of colours
    hand_rgb_tv: float = 100.0  # total variation of the hands' colours
    geometry_weight: float = 1e5  # w of the Laplacian terms
    geometry_weight_face: float = 50.0  # times this on eyes and expression vertices
    geometry_weight_hand: float = 10.0  # times this on hands and the expression boundary (overrides)
    boundary_threshold: float = 0.02  # Sobel magnitude of rendered positions (SPEC 11)
    boundary_ratio: float = 0.015  # dilation, fraction of the mask box's larger side
    boundary_ratio_patch: float = 0.06  # the same for the face patch


@dataclass(frozen=True)
class OptimConfig:
    """Adam and its schedule (SPEC 13)."""

    n_epochs: int = 5  # passes over the frames; pose fitting has one less
    lr: float = 1e-3  # mean_offset, triplane, offset net
    lr_appearance: float = 1e-2  # scale, rgb, rgb_aux, seg
    lr_smplx: float = 1e-3  # SMPL-X parameters but hand poses
    lr_hand: float = 1e-4  # hand poses
    eps: float = 1e-15  # of Adam
    lr_drop_at: float = 0.75  # when learning rates drop, fraction of all iterations
    lr_drop: float = 0.1  # what they are multiplied by then
    unbalanced_sampling: bool = False  # ablation: every photo once an epoch, not as often as generated frames
    fit_repeats: int = 10  # how often an epoch of pose fitting sees each test frame (SPEC 14)


@dataclass(frozen=True)
class AnimationConfig:
    """Neutral-pose turntable and animation videos (SPEC 15)."""

    n_views: int = 50  # of the turntable
    neutral_focal: float = 1500.0  # focal length of the turntable, pixels
    neutral_size: int = 1024  # height and width of its images, pixels
    neutral_trans_m: tuple[float, float, float] = (0.0, 3.0, 3.0)  # where the neutral pose stands, metres
    fps: int = 30  # frames per second of videos


@dataclass(frozen=True)
class Config:
    """All of it; any value can be set on the command line, for example --optim.n_epochs 10."""

    body: BodyConfig = dataclasses.field(default_factory=BodyConfig)
    field: FieldConfig = dataclasses.field(default_factory=FieldConfig)
    avatar: AvatarConfig = dataclasses.field(default_factory=AvatarConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    animation: AnimationConfig = dataclasses.field(default_factory=AnimationConfig)
    face_patch_size: int = 256  # height and width of face patches, pixels (SPEC 3)


@dataclass(frozen=True)
class Paths:
    """Where data is read from and results are written to."""

    subjects: Path = ROOT / "data" / "subjects"  # folder of the subjects
    output: Path = ROOT / "output"  # folder of snapshots, logs, renders and all other results


HUMAN_MODEL_FILES = ROOT / "common" / "human_model_files"
SKINNING_FIELD = ROOT / "tools" / "diffused_skinning_weights"
DEMO_BODY = ROOT / "data" / "demo_body"
DEMO_SKINNING_FIELD = ROOT / "data" / "cache" / "demo_skinning_field"
KEPT_OF_SUBJECTS = ROOT / "data" / "cache" / "subjects"  # what their files gave, from one start to the next
KEPT_SCALES = ROOT / "data" / "cache" / "initial_scales"  # of new avatars, from one start to the next
DEMO_MOTION = ROOT / "data" / "demo_motion" / "walk_wave.npz"
