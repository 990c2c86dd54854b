"""Write the motion that comes with the project: walking in, turning, waving; an AMASS file of SMPL-X."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.body_model.body import BodyModel
from common.body_model.files import load_body_data
from common.command_line import parse
from common.demo.walk_and_wave import make_walk_and_wave, write_walk_and_wave
from common.errors import run_command
from common.motion import Figure
from main.config import DEMO_BODY, DEMO_MOTION


@dataclass(frozen=True)
class Args:
    """Options of the motion."""

    output: Path = DEMO_MOTION
    """Where to write it."""


def main() -> None:
    """Make and write the motion."""
    args = parse(Args, __doc__)
    body = BodyModel(load_body_data(DEMO_BODY, "neutral"), 0)
    write_walk_and_wave(args.output, make_walk_and_wave(Figure.of_body(body)))
    print(args.output)


if __name__ == "__main__":
    run_command(main)
