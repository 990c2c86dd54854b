"""Sizes and magnitudes of the demo subject; every number of it that is not a shape or a colour (SPEC 16)."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import UserError


@dataclass(frozen=True)
class SubjectSize:
    """How large and how long a demo subject is."""

    height: int  # pixels, frames of all splits
    width: int
    n_subdivisions: int  # of the body mesh, for the true geometry
    n_generated: int  # frames in each of generated_0 and generated_1
    n_test: int
    n_motion: int  # frames of the motion folder
    texture_size: int  # pixels, textures in UV space
    patch_size: int  # pixels, face patch
    supersampling: int  # samples per pixel and axis, area averaged

    @property
    def true_texture_size(self) -> int:
        """Side of the true albedo texture, twice as fine as the textures handed to the avatar."""
        return 2 * self.texture_size


SIZES = {
    "tiny": SubjectSize(96, 64, 1, 2, 2, 3, 128, 256, 2),  # for tests of commands, not for looking at
    "small": SubjectSize(320, 240, 1, 16, 8, 48, 512, 256, 3),  # for a CPU and for CI
    "bench": SubjectSize(1024, 576, 2, 2, 2, 24, 1024, 256, 2),  # frames as large as the full ones, but few
    "full": SubjectSize(1024, 576, 2, 60, 24, 120, 1024, 256, 2),  # for a GPU and for benchmarks
}


def subject_size(name: str) -> SubjectSize:
    """The size of that name; UserError names the sizes there are."""
    if name not in SIZES:
        raise UserError(f"demo subject size {name!r} is unknown; choose one of {', '.join(SIZES)}")
    return SIZES[name]


@dataclass(frozen=True)
class FitNoise:
    """Error of the SMPL-X parameters beside the images: root mean square over joints and frames."""

    rotation_deg: float = 1.5  # body joints and root
    face_rotation_deg: float = 0.5  # jaw and eyes
    trans_m: float = 0.01  # mostly along the viewing direction, as in image-based fits
    trans_depth_share: float = 0.8  # of the variance of trans
    expr: float = 0.1
    steady_share: float = 0.5  # of the variance that drifts slowly through a video; the rest is jitter


@dataclass(frozen=True)
class VideoFlaws:
    """How a generated video differs from the truth."""

    color_drift: float = 0.09  # gain per colour channel at the end of a video, relative
    saturation_drift: float = 0.25
    flicker: float = 0.03  # brightness of single frames, relative
    blur_px_per_height: float = 0.0028  # sigma of the softening, relative to the image height
    face_change: float = 1.0  # 0: the photo's face, 1: another person's paint on it
    garble: float = 1.0  # 0: the true logo and text, 1: bent out of shape as generated video does
