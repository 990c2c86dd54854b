"""PSNR, SSIM and LPIPS of test renders: the official protocol, and further figures with labels (SPEC 14)."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from common import metrics
from common.errors import UserError
from common.io.atomic import atomic_path
from common.io.files import FRAME_INDEX, inside
from common.io.image import MAX_PIXELS, check_image, read_rgb
from common.io.json import read_numbers, write_json
from common.perceptual import Lpips

logger = logging.getLogger(__name__)

FIT_SUFFIX = "_fit_pose_to_test"  # of the result folder whose renders have fitted poses (SPEC 2)
REFINED, REFINED_MASK, BASE = "_refined.png", "_mask_refined.png", ".png"  # ends of a frame's files (SPEC 5)
METRICS = ("psnr", "ssim", "lpips")
OFFICIAL = "official"
MIN_SIDE_PX = 11  # the window of SSIM


@dataclass(frozen=True)
class GroundTruth:
    """A test frame's ground truth and its place in the original video."""

    index: int
    image: Path
    mask: Path
    box: tuple[int, int, int, int]  # x, y, w, h in pixels of the full frame
    full_size: tuple[int, int]  # height, width of the full frame

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the crop."""
        return self.box[3], self.box[2]

    def render(self, folder: Path, ending: str) -> Path:
        """Path of one of this frame's rendered images."""
        return folder / f"test_{self.index}{ending}"


@dataclass(frozen=True)
class Score:
    """The figures of one frame."""

    frame: int
    psnr: float  # dB
    ssim: float
    lpips: float | None  # None: the weights are not available


@dataclass(frozen=True)
class Protocol:
    """Figures of all frames, computed in one way."""

    name: str
    description: str
    scores: tuple[Score, ...]

    def mean(self, metric: str) -> float | None:
        """Average of psnr, ssim or lpips over the frames; None if it is not available."""
        values = [getattr(score, metric) for score in self.scores]
        return None if None in values else math.fsum(values) / len(values)


@dataclass(frozen=True)
class Evaluation:
    """The official figures first, then the others."""

    protocols: tuple[Protocol, ...]
    lpips_note: str  # which LPIPS, or why there is none

    @property
    def official(self) -> Protocol:
        """The figures to compare with published ones."""
        return self.protocols[0]


def find_ground_truth(subject: Path) -> list[GroundTruth]:
    """The test frames of a subject's folder in increasing order; UserError for missing or wrong files."""
    images = inside(subject, subject / "test" / "images")
    if not images.is_dir():
        raise UserError(f"{images}: no such folder; evaluation needs the subject's split `test`")
    indices = sorted(int(path.stem) for path in images.glob("*.png") if FRAME_INDEX.fullmatch(path.stem))
    if not indices:
        raise UserError(f"{images}: no test frames; expected images named by integers (0.png, 1.png, ...)")
    height, width = (
        int(n) for n in read_numbers(inside(subject, images / "img_shape_orig.json"), (2,)).tolist()
    )
    if min(height, width) < MIN_SIDE_PX or height * width > MAX_PIXELS:
        limits = f"at least {MIN_SIDE_PX} a side for SSIM, at most {MAX_PIXELS} in all"
        raise UserError(f"{images}/img_shape_orig.json: {width} x {height} pixels, use {limits}")
    frames = []
    for index in indices:
        box_file = inside(subject, images / f"{index}_bbox_orig.json")
        x, y, w, h = (round(n) for n in read_numbers(box_file, (4,)).tolist())
        if min(x, y) < 0 or min(w, h) < 1 or x + w > width or y + h > height:
            raise UserError(
                f"{box_file}: box [x, y, w, h] = {[x, y, w, h]} is not inside the original frame of "
                f"{width} x {height} pixels (img_shape_orig.json)"
            )
        mask = subject / "test" / "masks" / f"{index}.png"
        frame = GroundTruth(index, images / f"{index}.png", mask, (x, y, w, h), (height, width))
        for path in (frame.image, frame.mask):
            check_image(inside(subject, path), frame.size)
        frames.append(frame)
    return frames


def paste(crop: Tensor, frame: GroundTruth) -> Tensor:
    """A crop (3, h, w) at its place in a white full frame (3, H, W)."""
    x, y, w, h = frame.box
    canvas = crop.new_ones(crop.shape[0], *frame.full_size)
    canvas[:, y : y + h, x : x + w] = crop
    return canvas


def score_frame(
    render: Tensor, truth: Tensor, mask: Tensor, frame: GroundTruth, lpips: Lpips | None
) -> Score:
    """Compare two crops (3, h, w) in the full frame; outside the soft mask (1, h, w) both are white."""
    x, y = (paste(image * mask + (1 - mask), frame) for image in (render, truth))
    distance = None if lpips is None else float(lpips(x[None], y[None]))
    return Score(frame.index, float(metrics.psnr(x, y)), float(metrics.ssim(x, y)), distance)


@torch.inference_mode()
def score_renders(
    frames: Iterable[GroundTruth],
    folder: Path,
    ending: str,
    lpips: Lpips | None,
    device: torch.device,
    mask_ending: str | None = None,
) -> tuple[Score, ...]:
    """Scores of the renders `test_<i><ending>`; `mask_ending`: inside the union with that rendered mask."""
    scores = []
    for frame in frames:
        truth, mask = (read_rgb(path, frame.size).to(device) for path in (frame.image, frame.mask))
        render = read_rgb(frame.render(folder, ending), frame.size).to(device)
        mask = mask[:1]
        if mask_ending is not None:
            rendered_mask = read_rgb(frame.render(folder, mask_ending), frame.size).to(device)
            mask = torch.maximum(mask, rendered_mask[:1])
        scores.append(score_frame(render, truth, mask, frame, lpips))
    return tuple(scores)


@dataclass(frozen=True)
class _Plan:
    """A protocol to be computed."""

    name: str
    description: str
    folder: Path
    ending: str = REFINED
    mask_ending: str | None = None

    def files(self, frame: GroundTruth) -> list[Path]:
        endings = [self.ending] + ([] if self.mask_ending is None else [self.mask_ending])
        return [frame.render(self.folder, ending) for ending in endings]


def _plans(folder: Path) -> list[_Plan]:
    plans = [
        _Plan(OFFICIAL, "refined avatar, inside the ground-truth mask, full frame", folder),
        _Plan("base_avatar", "as official, avatar without pose-driven offsets", folder, BASE),
        _Plan(
            "full_silhouette",
            "as official, inside the union of the ground-truth mask and the rendered one",
            folder,
            mask_ending=REFINED_MASK,
        ),
    ]
    if folder.name.endswith(FIT_SUFFIX):
        unfitted = folder.with_name(folder.name.removesuffix(FIT_SUFFIX))
        plans.append(_Plan("without_pose_fitting", f"as official, renders of {unfitted.name}", unfitted))
    return plans


def check_renders(folder: Path, frames: Sequence[GroundTruth]) -> None:
    """UserError unless every test frame has a sound refined render."""
    hint = "run main/test.py for this subject first"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {hint}")
    missing = [path for frame in frames if not (path := frame.render(folder, REFINED)).is_file()]
    if len(missing) == len(frames):
        raise UserError(f"{folder}: no renders of the test frames (test_<i>{REFINED}) in it; {hint}")
    if missing:
        raise UserError(f"{missing[0]}: render missing ({len(missing)} of {len(frames)} are); {hint}")
    for frame in frames:
        check_image(frame.render(folder, REFINED), frame.size)


def evaluate(
    subject: Path, renders: Path, lpips: Lpips | None, lpips_note: str, device: torch.device
) -> Evaluation:
    """Score the renders of all test frames; figures beyond the official ones where their renders exist."""
    frames = find_ground_truth(subject)
    check_renders(renders, frames)
    if lpips is not None and min(frames[0].full_size) < lpips.min_size_px:
        height, width = frames[0].full_size
        raise UserError(f"{subject}: frames of {width} x {height} pixels are too small for LPIPS")
    protocols = []
    for plan in _plans(renders):
        if not all(path.is_file() for frame in frames for path in plan.files(frame)):
            logger.info("no complete renders for %s in %s: left out", plan.name, plan.folder.name)
            continue
        progress = tqdm(frames, desc=plan.name, unit="frame", leave=False)
        scores = score_renders(progress, plan.folder, plan.ending, lpips, device, plan.mask_ending)
        protocols.append(Protocol(plan.name, plan.description, scores))
    return Evaluation(tuple(protocols), lpips_note)


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write evaluation.json and evaluation.csv into a folder."""
    write_json(folder / "evaluation.json", as_dict(evaluation))
    with (
        atomic_path(folder / "evaluation.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["protocol", "frame", *METRICS])
        for protocol in evaluation.protocols:
            for score in protocol.scores:
                writer.writerow([protocol.name, score.frame, *(_cell(getattr(score, m)) for m in METRICS)])
            writer.writerow([protocol.name, "mean", *(_cell(protocol.mean(m)) for m in METRICS)])


def as_dict(evaluation: Evaluation) -> dict[str, Any]:
    """All figures as plain json values; a figure that is not available is null, an infinite one "inf"."""

    def values(source: Score | Protocol) -> dict[str, float | str | None]:
        figures = {m: _figure(source, m) for m in METRICS}
        return {m: str(v) if v is not None and math.isinf(v) else v for m, v in figures.items()}

    return {
        "lpips": evaluation.lpips_note,
        "protocols": {
            protocol.name: {
                "description": protocol.description,
                "mean": values(protocol),
                "frames": {str(score.frame): values(score) for score in protocol.scores},
            }
            for protocol in evaluation.protocols
        },
    }


def _figure(source: Score | Protocol, metric: str) -> float | None:
    return source.mean(metric) if isinstance(source, Protocol) else getattr(source, metric)


def report(evaluation: Evaluation) -> str:
    """The figures as text: official means, means of the other protocols, then official figures per frame."""
    official = evaluation.official
    lines = [f"official protocol ({official.description}), {len(official.scores)} test frames"]
    lines += [f"  {name:5s} {_text(official.mean(name.lower()))}" for name in ("PSNR", "SSIM", "LPIPS")]
    lines.append(f"  (LPIPS: {evaluation.lpips_note})")
    if others := evaluation.protocols[1:]:
        lines += ["", "not part of the official protocol:", _row("", "PSNR", "SSIM", "LPIPS")]
        for protocol in others:
            lines.append(_row(protocol.name, *(_text(protocol.mean(m)) for m in METRICS)))
        lines += [f"  ({protocol.name}: {protocol.description})" for protocol in others]
    lines += ["", "official protocol, per frame:", _row("frame", "PSNR", "SSIM", "LPIPS")]
    for score in official.scores:
        lines.append(_row(str(score.frame), *(_text(getattr(score, m)) for m in METRICS)))
    return "\n".join(lines)


def _row(name: str, *cells: str) -> str:
    return f"  {name:22s}" + "".join(f"{cell:>15s}" for cell in cells)


def _text(value: float | None) -> str:
    return "not available" if value is None else f"{value:.4f}"


def _cell(value: float | None) -> str:
    return "" if value is None else repr(value)
