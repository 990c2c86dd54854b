"""Make the diffused skinning field of a body: skinning weights on a grid around it (SPEC 8)."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from common.body_model.body import BodyModel
from common.body_model.files import load_body_data
from common.command_line import parse
from common.errors import UserError, run_command
from common.skinning_field import build_skinning_field
from main.config import FieldConfig
from main.setup import choose_device


@dataclass(frozen=True)
class Arguments:
    """Write diffused_skinning_weights.npy and skinning_grid_coords_{x,y,z}.npy, replacing existing ones."""

    human_model_path: Path = ROOT / "common" / "human_model_files"
    """folder of the body model files; data/demo_body for the demo body"""
    output: Path = Path(__file__).resolve().parent
    """folder to write to"""
    resolution: int = FieldConfig.resolution
    """grid points along each axis"""
    iterations: int = FieldConfig.n_iterations
    """diffusion steps"""
    threshold: float = FieldConfig.threshold_m
    """metres: grid points nearer than this to a vertex are fixed to its weights"""
    expansion: float = FieldConfig.expansion
    """growth of the bounding box on every side, as a fraction of its size"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where to compute; auto takes a GPU if there is one"""


def main() -> None:
    """Read the neutral-gender body, build its field, save it."""
    args = parse(Arguments, Arguments.__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.resolution < 2 or args.iterations < 0 or not args.threshold > 0 or not args.expansion >= 0:
        raise UserError(
            "--resolution must be 2 or more, --iterations and --expansion 0 or more, --threshold above 0"
        )
    body = BodyModel(load_body_data(args.human_model_path, "neutral"), n_subdivisions=0)
    settings = FieldConfig(args.resolution, args.iterations, args.threshold, args.expansion)
    device = choose_device(args.device)
    vertices = body.neutral_vertices(None, jaw_open=False).to(device)
    build_skinning_field(vertices, body.skinning_weights.to(device), settings).save(args.output)
    print(f"wrote the skinning field ({args.resolution}^3 grid points) to {args.output}")


if __name__ == "__main__":
    run_command(main)
