"""How well renders show the demo's loose cloth, whose place in every test frame is known (SPEC 16)."""

from __future__ import annotations

from pathlib import Path

import torch

from common.errors import UserError
from common.io.image import read_mask, read_rgb


def cloth_region_psnr(subject: Path, renders: Path, refined: bool) -> float:
    """Mean over test frames of the PSNR (dB, range 1) inside the true cloth masks.

    Renders `test_<i>.png` or `test_<i>_refined.png` are on white, the truth is the subject's test image.
    UserError if the subject has no truth beside it.
    """
    masks = sorted((subject / "truth" / "cloth_masks" / "test").glob("*.png"))
    if not masks:
        raise UserError(f"{subject}/truth/cloth_masks/test has no masks; make the demo subject again")
    values = []
    for path in masks:
        is_cloth = read_mask(path).bool()[0]
        if not is_cloth.any():
            continue
        truth = read_rgb(subject / "test" / "images" / path.name)
        render = read_rgb(renders / f"test_{path.stem}{'_refined' if refined else ''}.png")
        error = (render - truth)[:, is_cloth].square().mean()
        values.append(-10 * torch.log10(error.clamp_min(1e-10)))
    if not values:
        raise UserError(f"{masks[0].parent}: no cloth is seen in any test frame")
    return float(torch.stack(values).mean())
