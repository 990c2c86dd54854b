"""Which values the configuration may have; wrong ones are refused before anything is read (SPEC 17)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from common.errors import UserError
from common.inference import MAX_SUBDIVISIONS
from main.config import Config

MAX_SEED = 2**32 - 1
_TINY = 1e-300  # stands for "above 0"
_INF = math.inf
# Option -> least and greatest value; all other numbers, weights and rates, are 0 or more.
_RANGES: dict[str, tuple[float, float]] = {
    "body.n_subdivisions": (0, MAX_SUBDIVISIONS),
    "field.resolution": (2, 1024),
    "field.threshold_m": (_TINY, _INF),
    "avatar.triplane_channels": (1, _INF),
    "avatar.triplane_resolution": (1, _INF),
    "avatar.triplane_extent_m": (_TINY, _INF),
    "avatar.n_hidden": (1, _INF),
    "avatar.n_groups": (1, _INF),
    "avatar.offset_divisor": (_TINY, _INF),
    "optim.n_epochs": (1, _INF),
    "optim.eps": (_TINY, _INF),
    "optim.lr_drop_at": (0, 1),
    "optim.fit_repeats": (1, _INF),
    "animation.n_views": (1, _INF),
    "animation.neutral_focal": (_TINY, _INF),
    "animation.neutral_size": (1, _INF),
    "animation.neutral_trans_m": (-_INF, _INF),
    "animation.fps": (1, _INF),
    "face_patch_size": (16, _INF),
}


def check_config(config: Config) -> None:
    """UserError that names the first option whose value is out of its range."""
    for name, value in options(config):
        least, greatest = _RANGES.get(name, (0, _INF))
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not (
                math.isfinite(number) and least <= number <= greatest
            ):
                raise UserError(f"--{name} {number}: give {_describe(least, greatest)}")
    avatar = config.avatar
    if avatar.n_hidden % avatar.n_groups:
        raise UserError(
            f"--avatar.n_groups {avatar.n_groups}: give a divisor of --avatar.n_hidden ({avatar.n_hidden})"
        )


def check_seed(seed: int) -> None:
    """UserError unless the seed is one that all generators take."""
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"--seed {seed}: give {_describe(0, MAX_SEED)}")


def options(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(option name, value) of every value of a nested configuration."""
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            yield from options(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


def _describe(least: float, greatest: float) -> str:
    if least == -_INF:
        return "a finite number"
    if greatest < _INF:
        return f"{least:g} to {greatest:.10g}"
    return "a number above 0" if least == _TINY else f"a finite number, {least:g} or more"
