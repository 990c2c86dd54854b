"""Groups of arrays the numba kernels pass around."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Geometry(NamedTuple):
    """The Gaussians and the camera, contiguous; absent rotations or opacities have length 0."""

    mean: np.ndarray  # (N, 3)
    scale: np.ndarray  # (N, 1 or 3)
    rotation: np.ndarray  # (N or 0, 4)
    opacity: np.ndarray  # (N or 0,)
    cam: np.ndarray  # (18,) float64: R, t, focal, princpt, limits of |x/z| and |y/z| in the Jacobian


class Footprints(NamedTuple):
    """Where the Gaussians fall on the image; rows of culled ones are not set."""

    value: np.ndarray  # (N, 8) mean x, y; conic xx, xy, yy; opacity; depth; exponent surely under alpha 1/255
    box: np.ndarray  # (N, 4) int64 pixels x0, x1, y0, y1, ends exclusive
    n_bins: np.ndarray  # (N,) int64 number of small tiles touched, 0 if culled


class Bins(NamedTuple):
    """Lists of Gaussians, front to back, one per small tile: B tiles, S slots in all; a pair is (Gaussian, tile)."""

    n_x: int  # small tiles in a row of the image
    start: np.ndarray  # (B + 1,) int64 first slot of each tile
    gaussian_of_slot: np.ndarray  # (S,) int64
    first_pair: np.ndarray  # (N + 1,) int64
    slot_of_pair: np.ndarray  # (S,) int64


class Paint(NamedTuple):
    """What is blended; the channels that carry gradient to geometry come first."""

    channels: np.ndarray  # (N, C)
    background: np.ndarray  # (C,)
    order: np.ndarray  # (C,) int64, place of each channel in the image
    n_attached: int


class Canvas(NamedTuple):
    """What blending writes."""

    image: np.ndarray  # (C, H, W)
    transmittance: np.ndarray  # (H, W)
    last_slot: np.ndarray  # (H, W) int64 last slot that contributed, -1 none


class Gradients(NamedTuple):
    """Gradients of a loss, shaped as in Geometry and Paint."""

    mean: np.ndarray
    scale: np.ndarray
    rotation: np.ndarray
    opacity: np.ndarray
    channels: np.ndarray
