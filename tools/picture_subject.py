"""Draw the files of one frame and the textures of a subject in one picture with captions (docs/data.md)."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

from common.body_model.body import BodyModel
from common.body_model.files import load_body_data
from common.command_line import parse
from common.doctor.picture import overlay
from common.doctor.reprojection import view_body
from common.errors import run_command
from common.io.image import read_rgb, write_image
from data.dataset import Subject
from data.frame import CAPTURED, Frame, FrameFiles
from main import setup
from main.config import ROOT, Config, Paths

PANEL, CAPTION, GAP = 168, 30, 8  # pixels: height of a panel and of its caption, space between panels
Panel = tuple[str, np.ndarray]  # caption and image (H, W, 3) in [0, 1]


@dataclass(frozen=True)
class PictureArgs:
    """Options of the picture."""

    subject_id: str = "demo"
    """Name of a folder in data/subjects; `demo` is made on first use."""
    frame: int = 0
    """Frame of the captured split."""
    output: Path = ROOT / "docs" / "images" / "data.png"
    """The picture."""
    human_model_path: Path | None = None
    """Folder of the body model files (default: common/human_model_files; the demo body for the demo)."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    paths: Paths = field(default_factory=Paths)


def main() -> None:
    """Write the picture."""
    args = parse(PictureArgs, __doc__)
    setup.check_subject_id(args.subject_id)
    common = setup.SubjectArgs(
        args.subject_id, human_model_path=args.human_model_path, paths=args.paths, config=args.config
    )
    subject = setup.open_subject(common)
    subject.check()
    body = BodyModel(load_body_data(setup.body_path(common), args.config.body.gender), 0)
    frame = subject.load(CAPTURED, args.frame)
    picture = stacked([row_of(frame_panels(frame, subject, body)), row_of(texture_panels(subject))])
    write_image(args.output, np.asarray(picture))
    print(f"wrote {args.output}")


def frame_panels(frame: Frame, subject: Subject, body: BodyModel) -> list[Panel]:
    """The maps of one frame, as they are stored, and the fitted body over the photo."""
    image, mask = (value.permute(1, 2, 0).numpy() for value in (frame.image, frame.mask))
    is_person = mask[..., 0] > 0
    depth = frame.depth[0].numpy()
    valid = depth[frame.depth_mask[0].numpy() > 0]
    scaled = np.where(depth > 0, 0.15 + 0.85 * (depth - valid.min()) / max(np.ptp(valid), 1e-6), 0)
    view = view_body(body, subject.identity, frame.params, frame.camera)
    files, i = FrameFiles(subject.root, frame.split, frame.index), frame.index
    return [
        (f"images/{i}.png", image),
        (f"masks/{i}.png", np.repeat(mask, 3, 2)),
        (f"depths/{i}.npy\nbright = far", np.repeat(scaled[..., None], 3, 2)),
        (f"normals/{i}.npy\n(n + 1) / 2", frame.normal.permute(1, 2, 0).numpy()),
        (f"segs/{i}.png", frame.seg.permute(1, 2, 0).numpy()),
        (f"image_intrinsics/\n{i}_albedo.png", frame.albedo.permute(1, 2, 0).numpy()),
        (f"face_patches/\nimages/{i}.png", read_rgb(files.face_patch[0]).permute(1, 2, 0).numpy()),
        ("cam_params and\nsmplx_params", with_axes(overlay(image, is_person, view))),
    ]


def texture_panels(subject: Subject) -> list[Panel]:
    """The six textures."""
    panels = []
    for split in (CAPTURED, "generated_0"):
        for name in ("smplx_texture_inpaint", "smplx_texture_mask", "smplx_seg_inpaint"):
            texture = read_rgb(subject.root / split / "smplx_optimized" / f"{name}.png")
            panels.append((f"{split}/...\n{name}.png", texture.permute(1, 2, 0).numpy()))
    return panels


def with_axes(image: np.ndarray) -> np.ndarray:
    """The image with the camera's x and y axes in a corner, drawn as red and green arrows."""
    canvas = Image.fromarray((np.clip(image, 0, 1) * 255).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    unit = canvas.height / 8
    start, head = (unit * 0.3, unit * 0.3), unit * 0.12
    for dx, dy, color in ((1.0, 0.0, "red"), (0.0, 1.0, "lime")):
        end = start[0] + dx * unit, start[1] + dy * unit
        draw.line([start, end], fill=color, width=max(1, round(unit / 12)))
        tip = (end[0] + dx * head, end[1] + dy * head)
        draw.polygon(
            [tip, (end[0] - dy * head, end[1] + dx * head), (end[0] + dy * head, end[1] - dx * head)], color
        )
    return np.asarray(canvas, np.float32) / 255


def row_of(panels: list[Panel]) -> Image.Image:
    """Panels beside each other, each over its caption."""
    images = [resized(image) for _, image in panels]
    row = Image.new("RGB", (sum(image.width + GAP for image in images), PANEL + CAPTION), "white")
    draw, left = ImageDraw.Draw(row), 0
    for (caption, _), image in zip(panels, images, strict=True):
        row.paste(image, (left, 0))
        draw.multiline_text((left, PANEL + 2), caption, "black", ImageFont.load_default(11), spacing=1)
        left += image.width + GAP
    return row


def resized(image: np.ndarray) -> Image.Image:
    """An image (H, W, 3) at the height of a panel."""
    picture = Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8))
    size = round(picture.width * PANEL / picture.height), PANEL
    return picture.resize(size, Image.Resampling.LANCZOS)


def stacked(rows: list[Image.Image]) -> Image.Image:
    """Rows under each other."""
    page = Image.new("RGB", (max(row.width for row in rows), sum(row.height + GAP for row in rows)), "white")
    top = 0
    for row in rows:
        page.paste(row, (0, top))
        top += row.height + GAP
    return page


if __name__ == "__main__":
    run_command(main)
