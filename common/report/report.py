"""The report of one training: what went in, what came out, how the losses went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.checkpoint import Snapshot
from common.io.atomic import atomic_path
from common.io.image import to_uint8
from common.io.json import read_json_object
from common.report import page
from common.report.curves import draw_curve, read_curves
from common.report.page import Section
from common.report.pictures import (
    ERROR_RANGE,
    PhotoView,
    depth_picture,
    heat,
    on_white,
    photo_views,
    texture_maps,
    turntable,
)
from common.run_state import flat, git_revision, machine, plain, versions
from common.trainer import PersonModel
from data.dataset import GENERATED, Subject
from data.frame import CAPTURED, Frame
from main.config import Config

TEXTURE_SIZE = 512  # pixels
EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class ReportInput:
    """What a report is made from."""

    name: str  # of the subject
    source: Path  # the snapshot's file
    snapshot: Snapshot
    model: PersonModel
    subject: Subject
    config: Config
    log_folder: Path  # of the training's TensorBoard files
    results: Sequence[Path]  # folders where an evaluation.json may be
    device: torch.device


@torch.no_grad()
def write_report(path: Path, report: ReportInput) -> None:
    """Write the page; UserError if the subject's photo or its pose cannot be read."""
    index = report.subject.frames(CAPTURED)[0]
    frame = report.subject.load(CAPTURED, index).to(report.device)
    pose = report.model.smplx_param_dict.pose(CAPTURED, index)
    views = photo_views(report.model.persona, pose, frame, report.config.loss)
    sections = [
        Section("numbers", "Numbers", _numbers(report, *views)),
        Section("losses", "Losses", _losses(report.log_folder)),
        Section("photo", "Photo and avatar", _photo(frame, *views)),
        Section("geometry", "Normals, depth, parts, boundaries", _geometry(frame, *views)),
        Section("textures", "Texture maps", _textures(report)),
        Section("turntable", "Turntable", _turntable(report)),
        Section("config", "Configuration", _config(report)),
        Section("versions", "Versions", _versions(report)),
    ]
    lead = f"Avatar of {report.source.name}, epoch {report.snapshot.epoch}."
    with atomic_path(path) as temporary:
        temporary.write_text(page.page(f"Training report: {report.name}", lead, sections), encoding="utf-8")


def _numbers(report: ReportInput, base: PhotoView, refined: PhotoView) -> str:
    avatar, subject = report.model.persona, report.subject
    scale_mm = 1e3 * torch.exp(avatar.scale)
    offset_mm = 1e3 * avatar.mean_offset.norm(dim=1)
    quality = [
        ["PSNR on the photo (dB, both on white)", f"{base.psnr:.2f}", f"{refined.psnr:.2f}"],
        ["SSIM on the photo", f"{base.ssim:.4f}", f"{refined.ssim:.4f}"],
    ]
    counts = {
        "Gaussians": len(avatar.mean_offset),
        "photos": len(subject.frames(CAPTURED)),
        "generated frames": ", ".join(f"{split}: {len(subject.frames(split))}" for split in GENERATED),
        "epoch of the snapshot": report.snapshot.epoch,
        "Gaussian size (median, 99th percentile)": _spread(scale_mm),
        "offset from the body (median, 99th percentile)": _spread(offset_mm),
    }
    parts = [page.table(quality, ["", "base", "refined"], are_numbers=True), page.named_values(counts)]
    for folder in report.results:
        if (folder / EVALUATION).is_file():
            parts.append(_evaluation(folder / EVALUATION))
    return "".join(f'<div class="card">{part}</div>' for part in parts)


def _spread(millimetres: Tensor) -> str:
    ordered = millimetres.reshape(-1).sort().values
    middle, high = (float(ordered[int(q * (len(ordered) - 1))]) for q in (0.5, 0.99))
    return f"{middle:.2f} mm, {high:.2f} mm"


def _evaluation(file: Path) -> str:
    """The means of an evaluation.json; what is not there or not a number shows as it is."""
    protocols = read_json_object(file, ("protocols",))["protocols"]
    rows = []
    for name, content in protocols.items() if isinstance(protocols, dict) else ():
        mean = content.get("mean", {}) if isinstance(content, dict) else {}
        rows.append([str(name), *(_figure(mean.get(metric)) for metric in ("psnr", "ssim", "lpips"))])
    caption = page.paragraph(f"Test frames ({file.parent.name}/{EVALUATION}), mean over the frames:")
    return caption + page.table(rows, ["protocol", "PSNR", "SSIM", "LPIPS"], are_numbers=True)


def _figure(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "not available" if value is None else str(value)


def _losses(folder: Path) -> str:
    curves = read_curves(folder)
    if not curves:
        return page.paragraph(f"There is no training log in {folder}.")
    last_step = max(int(curve.steps[-1]) for curve in curves)
    charts = [page.card(curve.name, draw_curve(curve, last_step)) for curve in curves]
    text = (
        "Every term as it enters the sum, over the training steps: line, mean; band, range of single steps. "
    )
    text += "Terms of photos and of generated frames are there for their own frames only."
    return page.paragraph(text) + page.grid(charts, 300)


def _photo(frame: Frame, base: PhotoView, refined: PhotoView) -> str:
    pictures = [
        page.figure(to_uint8(frame.image), "photo"),
        page.figure(to_uint8(on_white(frame.image, frame.mask)), "photo in its mask"),
        page.figure(to_uint8(base.image), f"base, {base.psnr:.2f} dB"),
        page.figure(to_uint8(refined.image), f"refined, {refined.psnr:.2f} dB"),
        page.figure(heat(base.error, ERROR_RANGE), f"error of base, black 0 to yellow {ERROR_RANGE}"),
        page.figure(heat(refined.error, ERROR_RANGE), f"error of refined, black 0 to yellow {ERROR_RANGE}"),
    ]
    return page.grid(pictures, _width(frame))


def _width(frame: Frame) -> int:
    """Least width on the page of a picture of the photo's shape: three columns for wide ones, more for tall ones."""
    return 340 if frame.image.shape[2] > frame.image.shape[1] else 180


def _geometry(frame: Frame, base: PhotoView, refined: PhotoView) -> str:
    views = (base.render, refined.render)
    depth_mask = frame.depth_mask * frame.mask
    depths = [depth_picture(frame.depth * depth_mask, depth_mask)]
    depths += [depth_picture(view.depth, view.mask) for view in views]
    rows = {
        "normals": [to_uint8(image) for image in (frame.normal, *(view.normal for view in views))],
        "depth": depths,
        "parts": [to_uint8(image) for image in (frame.seg, *(view.seg for view in views))],
    }
    pictures = [
        page.figure(picture, f"{kind}: {origin}")
        for kind, row in rows.items()
        for picture, origin in zip(row, ("estimated from the photo", "base", "refined"), strict=True)
    ]
    masks = {"mask of the photo": frame.mask, "boundary map: base": base.boundary}
    masks["boundary map: refined"] = refined.boundary
    pictures += [page.figure(to_uint8(mask), name) for name, mask in masks.items()]
    return page.grid(pictures, _width(frame))


def _textures(report: ReportInput) -> str:
    before = report.subject.textures()
    given = {"colour": before.rgb, "auxiliary colour": before.rgb_aux, "parts": before.seg}
    pictures = [page.figure(_small(value), f"{name}: from the data") for name, value in given.items()]
    trained = texture_maps(report.model.persona, TEXTURE_SIZE)
    pictures += [page.figure(to_uint8(value), f"{name}: trained") for name, value in trained.items()]
    return page.row(pictures[:3]) + page.row(pictures[3:])


def _small(texture: Tensor) -> Any:
    """At most TEXTURE_SIZE pixels wide, by averaging."""
    size = min(TEXTURE_SIZE, texture.shape[-1])
    return to_uint8(torch.nn.functional.adaptive_avg_pool2d(texture[None], size)[0])


def _turntable(report: ReportInput) -> str:
    frames = turntable(report.model.persona, report.config.animation)
    return page.figure(frames, "base, left; refined, right; neutral pose")


def _config(report: ReportInput) -> str:
    run = report.snapshot.run
    if run is None:
        note = (
            "The snapshot does not say with which options it was trained; these are the ones of this report."
        )
        options = plain(asdict(report.config))
    else:
        note, options = "The options of the training that wrote the snapshot.", run["config"]
    return page.paragraph(note) + page.folded("all options", page.named_values(flat(options)))


def _versions(report: ReportInput) -> str:
    here = {"revision": git_revision(), **versions(), **machine(report.device)}
    run = report.snapshot.run or {}
    trained = {
        "revision": run.get("revision", "unknown"),
        **run.get("versions", {}),
        **run.get("machine", {}),
    }
    rows = [[name, str(trained.get(name, "unknown")), value] for name, value in here.items()]
    return page.table(rows, ["", "training", "this report"])
