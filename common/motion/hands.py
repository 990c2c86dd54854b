"""Finger rotations: principal components, and the two meanings of zero (SPEC 7)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from common.errors import UserError
from common.io.npz import read_npz
from common.motion.motion import Motion

N_VALUES = 45  # axis-angle of 15 joints


@dataclass(frozen=True)
class HandComponents:
    """Where the principal components of hand poses are read from, when a motion needs them."""

    folder: Path  # of the body model files
    gender: str

    def expand(self, coefficients: np.ndarray, side: str, where: str) -> np.ndarray:
        """Rotations (T, 15, 3), relative to the mean hand, of coefficients (T, k), k <= 45; side left or right."""
        file = self.folder / "smplx" / f"SMPLX_{self.gender.upper()}.npz"
        n_components = coefficients.shape[1]
        key = f"hands_components{side[0]}"
        if not file.is_file():
            raise UserError(
                f"{where}: {n_components} principal components of a hand need {file}, which is not there; "
                "register at smpl-x.is.tue.mpg.de, or save full hand poses of 45 numbers (use_pca=False)"
            )
        try:
            components = read_npz(file, (key,))[key]
        except UserError as error:
            raise UserError(f"{file} has no readable {key} ({error}); download it again") from error
        if components.shape != (N_VALUES, N_VALUES) or components.dtype.kind != "f":
            raise UserError(
                f"{file}: {key} has shape {components.shape}, expected (45, 45); download it again"
            )
        return (coefficients @ components[:n_components].astype(np.float64)).reshape(-1, 15, 3)


def relative_to_mean(motion: Motion, hand_mean: Tensor) -> Motion:
    """The motion with finger rotations relative to the mean hand (30, 3), as in files of SPEC 3 and 4.

    The body function adds the mean to them as axis-angle, so it is subtracted in the same form.
    """
    if motion.hands == "relative":
        return motion
    left, right = hand_mean.to(motion.params.lhand_pose).split(15)
    params = replace(
        motion.params,
        lhand_pose=motion.params.lhand_pose - left,
        rhand_pose=motion.params.rhand_pose - right,
    )
    return replace(motion, params=params, hands="relative")
