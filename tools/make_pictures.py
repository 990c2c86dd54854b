"""Draw the README's picture from the demo's results: photo and avatar, test frames, a strip of the animation."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from common.command_line import parse
from common.errors import UserError, run_command
from common.io.image import read_rgb, write_image
from common.io.video import read_video
from main.config import ROOT, Paths
from main.setup import FIT_SUFFIX

N_COLUMNS = 8


@dataclass(frozen=True)
class Args:
    """Options of the picture; main/test.py, main/animation.py and tools/evaluate_demo.py must have run."""

    subject_id: str = "demo"
    """The demo subject."""
    animation: Path = ROOT / "output" / "animation" / "demo" / "motion.mp4"
    """Video of main/animation.py."""
    output: Path = ROOT / "docs" / "images" / "demo.png"
    """The picture."""
    paths: Paths = field(default_factory=Paths)


def main() -> None:
    """Write the picture."""
    args = parse(Args, __doc__)
    results = args.paths.output / "result"
    rows = [
        photo_row(results / args.subject_id),
        *test_rows(results / (args.subject_id + FIT_SUFFIX)),
        animation_row(args.animation),
    ]
    width = max(row.shape[2] for row in rows)
    write_image(args.output, torch.cat([centred(row, width) for row in rows], dim=1))
    print(f"wrote {args.output}")


def photo_row(folder: Path) -> Tensor:
    """The photo, refined and base avatar in its pose, and their normals."""
    names = ("gt", "refined", "", "normal_refined", "normal")
    images = [read_rgb(folder / f"captured_0{'_' if name else ''}{name}.png") for name in names]
    return torch.cat(images, dim=2)


def test_rows(folder: Path) -> list[Tensor]:
    """Test images above, refined avatar below."""
    truths = sorted(folder.glob("test_*_gt.png"), key=lambda path: int(path.name.split("_")[1]))[:N_COLUMNS]
    if not truths:
        raise UserError(f"no test renders in {folder}; run tools/evaluate_demo.py first")
    renders = [path.with_name(path.name.replace("_gt", "_refined")) for path in truths]
    return [torch.cat([half(read_rgb(path)) for path in row], dim=2) for row in (truths, renders)]


def animation_row(video: Path) -> Tensor:
    """Evenly spaced frames of the animation, without the photo on their left."""
    if not video.is_file():
        raise UserError(f"missing file: {video}; run main/animation.py first")
    n_frames = sum(1 for _ in read_video(video))
    shown = [n_frames * i // N_COLUMNS for i in range(N_COLUMNS)]
    chosen = {i: frame for i, frame in enumerate(read_video(video)) if i in shown}
    images = [torch.from_numpy(chosen[i]).permute(2, 0, 1).float() / 255 for i in shown]
    return torch.cat([half(image[:, :, image.shape[2] // 2 :]) for image in images], dim=2)


def half(image: Tensor) -> Tensor:
    """The image at half its size."""
    return torch.nn.functional.avg_pool2d(image, 2)


def centred(row: Tensor, width: int) -> Tensor:
    """A row (3, H, W) in the middle of a white row of the given width."""
    left = (width - row.shape[2]) // 2
    return torch.nn.functional.pad(row, (left, width - row.shape[2] - left), value=1.0)


if __name__ == "__main__":
    run_command(main)
