"""The perceptual loss's weights: VGG16 (training) and AlexNet (evaluation), trunks and linear heads."""

from __future__ import annotations

from pathlib import Path

from common.doctor.findings import Findings
from common.errors import UserError
from common.perceptual import TORCHVISION_URL, TRUNKS, Net, find_heads, find_trunk, load_lpips

_USES: dict[Net, str] = {"vgg": "training (or train with --no_lpips)", "alex": "LPIPS in the evaluation"}
_HEADS = "take lpips/weights/v0.1/{0}.pth out of the wheel of the Python package lpips 0.1.4 (or pip install lpips)"


def check_weights(findings: Findings, folder: Path | None, is_needed: bool) -> None:
    """Both networks' files in the folder, torch's cache or an installed `lpips`; nothing is downloaded.

    Missing files are a warning if `is_needed` (the demo does without them).
    """
    findings.topic = "perceptual weights"
    if folder is not None and not folder.is_dir():
        findings.error(
            "folder", f"--lpips_weights {folder}: no such folder", "give the folder of the weight files"
        )
        return
    note = (
        findings.warn
        if is_needed
        else lambda check, text, remedy: findings.ok(check, f"{text}; the demo needs none")
    )
    for net, use in _USES.items():
        trunk = TRUNKS[net].file_name
        is_trunk_there = find_trunk(net, folder) is not None
        is_heads_there = find_heads(net, folder) is not None
        if not is_trunk_there:
            note(
                net,
                f"{trunk} is not there, needed for {use}",
                f"download {TORCHVISION_URL}{trunk} into --lpips_weights DIR",
            )
        if not is_heads_there:
            note(net, f"the linear heads {net}.pth are not there, needed for {use}", _HEADS.format(net))
        if is_trunk_there and is_heads_there:
            try:
                load_lpips(net, folder, download=False)
            except UserError as error:
                findings.refused(net, str(error))
            else:
                findings.ok(net, f"network and heads are there ({trunk}, {net}.pth)")
