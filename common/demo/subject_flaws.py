"""What generated video does to a person's picture: colours drift, detail softens, brightness flickers (SPEC 16)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from common.demo.subject_settings import VideoFlaws

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class ColorDrift:
    """The colour errors of one video, frame by frame."""

    gain: np.ndarray  # (n, 3)
    saturation: np.ndarray  # (n,)
    brightness: np.ndarray  # (n,)


def draw_drift(n_frames: int, flaws: VideoFlaws, rng: np.random.Generator) -> ColorDrift:
    """Errors that grow from the first frame to the last, in a direction of the seed's, and a slight flicker."""
    time = (np.arange(n_frames) + 0.5) / n_frames
    tint = rng.standard_normal(3)
    tint -= tint.mean()
    tint = tint / np.abs(tint).max() + rng.choice([-0.35, 0.35])
    wobble = 0.25 * np.sin(2 * np.pi * (time * rng.uniform(0.8, 1.6) + rng.uniform()))
    course = (time + wobble * time)[:, None] * flaws.color_drift
    return ColorDrift(
        gain=np.exp(course * tint),
        saturation=1 + flaws.saturation_drift * rng.choice([-1, 1]) * time,
        brightness=1 + flaws.flicker * rng.standard_normal(n_frames),
    )


def spoil(image: np.ndarray, frame: int, drift: ColorDrift, flaws: VideoFlaws) -> np.ndarray:
    """One frame (H, W, 3) of the video as the generator would have made it."""
    sigma = flaws.blur_px_per_height * image.shape[0]
    soft = gaussian_filter(image, (sigma, sigma, 0))
    grey = soft @ _LUMA
    soft = grey[..., None] + (soft - grey[..., None]) * drift.saturation[frame]
    return np.clip(soft * drift.gain[frame] * drift.brightness[frame], 0, 1).astype(np.float32)
