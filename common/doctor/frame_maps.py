"""The values in one frame's maps: mask, depth, normals, parts, and whether they agree with each other and the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.doctor.findings import Findings
from common.doctor.reprojection import BodyView

# Of the image: a mask with less shows nobody, one with more cuts nothing out.
EMPTY_SHARE, FULL_SHARE = 0.002, 0.98
GOOD_COVERAGE, LOW_COVERAGE = 0.9, 0.5  # of the person: where depth, normals and parts should be valid
OUTSIDE_SHARE = 0.3  # of the valid pixels: with more outside the mask, background is taken for the person
UNIT_TOLERANCE, OFF_UNIT_SHARE = 0.1, 0.05
REVERSED = -0.2  # correlation with the body below which an axis is taken to be reversed
MIN_SPREAD = 0.02  # metres or unit normals: less structure of the body than this tells no direction
MIN_OVERLAP_PX = 50
GOOD_IOU, LOW_IOU = 0.6, 0.2  # of body and mask; loose clothes and hair leave it well below 1


@dataclass(frozen=True)
class Maps:
    """What could be read of a frame; None: not readable, which is told elsewhere."""

    where: str  # "<split> frame <i>"
    mask: np.ndarray | None  # (H, W) bool
    depth: np.ndarray | None  # (H, W)
    depth_valid: np.ndarray | None  # (H, W)
    normal: np.ndarray | None  # (H, W, 3)
    normal_valid: np.ndarray | None  # (H, W)
    seg: np.ndarray | None  # (H, W, 3) in [0, 1]
    seg_valid: np.ndarray | None  # (H, W)
    view: BodyView | None


def check_maps(findings: Findings, maps: Maps) -> None:
    """Everything about the maps' values."""
    if maps.mask is not None:
        check_mask(findings, maps.where, maps.mask)
    if maps.depth is not None:
        _check_depth(findings, maps, maps.depth)
    if maps.normal is not None:
        _check_normal(findings, maps, maps.normal)
    if maps.seg is not None:
        _check_seg(findings, maps, maps.seg)
    if maps.mask is not None and maps.view is not None:
        _check_silhouette(findings, maps.where, maps.mask, maps.view)


def check_mask(findings: Findings, where: str, mask: np.ndarray) -> None:
    """A mask (H, W) bool must show somebody and cut something out."""
    share = float(mask.mean())
    if share == 0:
        findings.error(
            "mask is empty", f"{where}: no pixel of channel 0 is over 127.5",
            "segment the person again; write 255 for the person into all channels, not into alpha",
        )  # fmt: skip
    elif share < EMPTY_SHARE:
        findings.warn(
            "mask is tiny", f"{where}: {share:.2%} of the image", "check the segmentation of this frame"
        )
    elif share > FULL_SHARE:
        findings.error(
            "mask is full", f"{where}: {share:.1%} of the image counts as the person",
            "segment the person; background must be 0",
        )  # fmt: skip


def _validity(
    findings: Findings, maps: Maps, name: str, values: np.ndarray, valid: np.ndarray | None
) -> np.ndarray | None:
    """Pixels (H, W) bool to look at: valid, finite, in the mask; None where there are too few."""
    if valid is None:
        return None
    if not np.isin(valid, (0, 1)).all():
        numeric = valid.astype(np.float64)
        if not (np.isfinite(numeric).all() and numeric.min() >= 0 and numeric.max() <= 1):
            findings.error(
                f"{name}: validity is not 0 and 1", f"{maps.where}: values {numeric.min():g} to {numeric.max():g}",
                "save the validity as a boolean array",
            )  # fmt: skip
            return None
    is_valid = valid > 0
    finite = np.isfinite(values).reshape(*valid.shape, -1).all(2)
    if (is_valid & ~finite).any():
        findings.error(
            f"{name}: NaN or infinite", f"{maps.where}: {int((is_valid & ~finite).sum())} valid pixels",
            "mark these pixels as not valid, or write the map again",
        )  # fmt: skip
    if maps.mask is None or not maps.mask.any():
        return None
    inside = is_valid & maps.mask
    coverage = inside.sum() / maps.mask.sum()
    if coverage < GOOD_COVERAGE:
        note = findings.error if coverage < LOW_COVERAGE else findings.warn
        note(
            f"{name}: not valid on the person", f"{maps.where}: valid on {coverage:.0%} of the mask",
            "the map and the mask must be of the same picture; check the validity file",
        )  # fmt: skip
    outside = 1 - inside.sum() / max(int(is_valid.sum()), 1)
    if outside > OUTSIDE_SHARE:
        findings.warn(
            f"{name}: valid off the person", f"{maps.where}: {outside:.0%} of the valid pixels are background",
            "make the background not valid: validity = estimator's validity and mask",
        )  # fmt: skip
    chosen = inside & finite
    return chosen if chosen.sum() >= MIN_OVERLAP_PX else None


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Correlation of two sets of values; None where one of them hardly varies."""
    if a.std() < MIN_SPREAD or b.std() < 1e-8:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _check_depth(findings: Findings, maps: Maps, depth: np.ndarray) -> None:
    chosen = _validity(findings, maps, "depth", depth, maps.depth_valid)
    if chosen is None:
        return
    values = depth[chosen].astype(np.float64)
    if np.ptp(values) == 0:
        findings.warn(
            "depth is constant", f"{maps.where}: {values[0]:g} everywhere", "estimate the depth again"
        )
        return
    share = float((values <= 0).mean())
    if share > OFF_UNIT_SHARE:
        findings.warn(
            "depth is not positive", f"{maps.where}: {share:.0%} of the person is 0 or less and is ignored",
            "add a constant: any affine scale will do, but values must be positive",
        )  # fmt: skip
    common = _on_body(maps, chosen)
    if maps.view is None or common is None:
        return
    correlation = _correlation(maps.view.depth[common], depth[common].astype(np.float64))
    if correlation is not None and correlation < REVERSED:
        findings.error(
            "depth is reversed", f"{maps.where}: correlation {correlation:.2f} with the fitted body's depth",
            "larger must be farther; of a disparity map (larger is nearer) write its maximum minus it",
        )  # fmt: skip


def _on_body(maps: Maps, chosen: np.ndarray) -> np.ndarray | None:
    """Those of the chosen pixels that the fitted body covers; None without a body or with too few of them."""
    if maps.view is None:
        return None
    common = chosen & maps.view.is_covered
    return common if common.sum() >= MIN_OVERLAP_PX else None


def _check_normal(findings: Findings, maps: Maps, normal: np.ndarray) -> None:
    chosen = _validity(findings, maps, "normals", normal, maps.normal_valid)
    if chosen is None:
        return
    values = normal[chosen].astype(np.float64)
    if values.min() >= 0 and np.median(values) > 0.3:
        findings.error(
            "normals are colours", f"{maps.where}: all values lie in [{values.min():.2f}, {values.max():.2f}]",
            "write vectors in [-1, 1]: 2 * colour - 1",
        )  # fmt: skip
        return
    off = float((np.abs(np.linalg.norm(values, axis=1) - 1) > UNIT_TOLERANCE).mean())
    if off > OFF_UNIT_SHARE:
        findings.warn(
            "normals are not unit",
            f"{maps.where}: {off:.0%} of the person",
            "divide each vector by its length",
        )
    away = float((values[:, 2] < 0).mean())
    if away > 0.5:
        findings.error(
            "normals point away", f"{maps.where}: z < 0 on {away:.0%} of the person",
            "z must point towards the camera; multiply it by -1",
        )  # fmt: skip
    common = _on_body(maps, chosen)
    if maps.view is None or common is None:
        return
    for axis, (name, direction) in enumerate((("x", "right"), ("y", "up"))):
        correlation = _correlation(
            maps.view.normal[common][:, axis], normal[common][:, axis].astype(np.float64)
        )
        if correlation is not None and correlation < REVERSED:
            findings.error(
                f"normals: {name} is reversed", f"{maps.where}: correlation {correlation:.2f} with the fitted body's",
                f"{name} must point {direction}; multiply it by -1",
            )  # fmt: skip


def _check_seg(findings: Findings, maps: Maps, seg: np.ndarray) -> None:
    chosen = _validity(findings, maps, "segmentation", seg, maps.seg_valid)
    if chosen is not None and np.ptp(seg[chosen], axis=0).max() == 0:
        findings.warn(
            "segmentation has one colour", f"{maps.where}: the person is one part",
            "give every body part or piece of clothing a colour of its own",
        )  # fmt: skip


def _check_silhouette(findings: Findings, where: str, mask: np.ndarray, view: BodyView) -> None:
    union = (mask | view.is_covered).sum()
    overlap = (mask & view.is_covered).sum() / union if union else 0.0
    if overlap < GOOD_IOU and mask.any() and view.share_in_image > 0 and view.is_in_front.all():
        note = findings.error if overlap < LOW_IOU else findings.warn
        note(
            "body is not on the person", f"{where}: body and mask overlap by {overlap:.2f} (intersection over union)",
            "look at the picture of the check; fit the frame again, with the camera and image size of cam_params",
        )  # fmt: skip
