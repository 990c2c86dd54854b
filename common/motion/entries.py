"""Entries that several formats share: facial expressions and the frame rate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.joints import N_EXPR
from common.motion.containers import as_array
from common.motion.layouts import vectors

EXPRESSIONS = ("expression", "expressions", "expr", "exp", "smplx_expr")
RATES = ("mocap_framerate", "mocap_frame_rate", "frame_rate", "framerate", "fps")
_MAX_FPS = 10_000


def expressions(entries: Mapping[str, Any], n_frames: int, path: Path) -> np.ndarray:
    """Expression coefficients (T, 50): as many as there are, zero for the rest; those above 50 are dropped."""
    expr = np.zeros((n_frames, N_EXPR))
    for name in EXPRESSIONS:
        if entries.get(name) is not None:
            where = f"{path}: {name}"
            given = vectors(as_array(entries[name], where), n_frames, where)[:, :N_EXPR]
            expr[:, : given.shape[1]] = given
            break
    return expr


def frame_rate(entries: Mapping[str, Any], path: Path) -> float | None:
    """Frames per second, or None if the file does not say."""
    for name in RATES:
        if name in entries:
            rate = as_array(entries[name], f"{path}: {name}")
            if rate.size != 1 or not 0 < rate.item() <= _MAX_FPS:
                raise UserError(f"{path}: {name} must be one number of frames per second above 0")
            return rate.item()
    return None
