"""Make the runtime form of a body (one safe .npz) from the licensed SMPL-X and FLAME files (SPEC 7, 16)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common.body_model.files import convert_licensed_files, save_runtime_file
from common.command_line import parse
from common.errors import run_command
from main.config import Gender


@dataclass(frozen=True)
class Options:
    """Convert the licensed model files to body_<gender>.npz in the same folder."""

    human_model_path: Path = ROOT / "common" / "human_model_files"
    """Folder with smplx/ and flame/ inside, laid out as their sites' downloads."""
    gender: tuple[Gender, ...] = ("male", "neutral")
    """Bodies to convert; the avatar uses male, the skinning field neutral."""


def main() -> None:
    """Convert each gender asked for."""
    options = parse(Options, __doc__)
    for gender in options.gender:
        data = convert_licensed_files(options.human_model_path, gender)
        target = save_runtime_file(data, options.human_model_path, gender)
        print(f"{target}: {data.n_vertices} vertices, {data.faces.shape[0]} faces")


if __name__ == "__main__":
    run_command(main)
