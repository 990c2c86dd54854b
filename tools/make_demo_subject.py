"""Make the demo subject: a person whose truth is known, ready for training (SPEC 16)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.command_line import parse
from common.demo.subject import make_demo_subject
from common.errors import run_command

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Args:
    """Make the demo subject: photo, generated videos, test frames, a motion, and the truth behind them."""

    output: Path = ROOT / "data" / "subjects" / "demo"
    """Folder to be made."""
    size: Literal["tiny", "small", "bench", "full"] = "small"
    """small: 320 x 240, for a CPU; full: 1024 x 576, for a GPU; bench: frames as large, but few; tiny: 96 x 64, for
    tests of commands only."""
    seed: int = 0
    """Person, clothes, motions and flaws follow from it."""
    overwrite: bool = False
    """Replace the folder if there is something in it."""


def main() -> None:
    """Parse the command line and make the subject."""
    args = parse(Args, Args.__doc__)
    make_demo_subject(args.output, args.size, args.seed, args.overwrite)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    run_command(main)
