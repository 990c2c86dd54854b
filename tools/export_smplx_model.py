"""Write a body in runtime form (for example the demo body) as a model file for the `smplx` package (SPEC 16)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.body_model.export import export_smplx_model
from common.body_model.files import read_body_data
from common.command_line import parse
from common.errors import run_command


@dataclass(frozen=True)
class Options:
    """Write <output> so that smplx.create(output, model_type='smplx') loads it and poses it identically."""

    output: Path
    """File to write, named like SMPLX_NEUTRAL.npz (in a folder smplx/ to use that folder's parent)."""
    body: Path = ROOT / "data" / "demo_body" / "body.npz"
    """Runtime form of the body."""


def main() -> None:
    """Convert one file."""
    options = parse(Options, Options.__doc__)
    export_smplx_model(read_body_data(options.body), options.output)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    run_command(main)
