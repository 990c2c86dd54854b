"""Search for inputs that break the byte-level readers, guided by the branches they take (libFuzzer through atheris).

`python tests/fuzz/atheris_run.py --loader npy --inputs 100000`; atheris is in requirements-dev.txt where it has a
wheel (Linux, Python 3.11 to 3.13). Exit code 0, or another and the input that broke the reader in the current folder.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import tyro

MAX_SECONDS = 5
MAX_MIB = 2048  # of the whole process, PyTorch included
MAX_INPUT_BYTES = 4096
NAMES = Literal["npy", "npz", "json", "obj", "pkl", "frame list"]


@dataclass(frozen=True)
class Args:
    """Options of the search."""

    loader: NAMES
    """Which reader: those whose parsing is this project's own Python."""
    inputs: int = 1000
    """How many inputs to try."""
    seed: int = 1
    """Seed of libFuzzer's random numbers."""


def main() -> None:
    """Try inputs until one breaks the reader or all are tried."""
    args = tyro.cli(Args, description=__doc__, use_underscores=True)
    try:
        import atheris
    except ModuleNotFoundError:
        sys.exit("atheris is not installed: pip install atheris (Linux, Python 3.11 to 3.13)")
    with atheris.instrument_imports(
        include=["common.io", "common.body_model", "data", "json", "pickle", "zipfile"]
    ):
        from common.errors import UserError
        from tests.fuzz.loaders import MAKERS

    folder = Path(tempfile.mkdtemp())
    (folder / "seeds").mkdir()
    name = "npz (body)" if args.loader == "npz" else args.loader
    loader = MAKERS[name](folder / "seeds")
    if loader.prepare is not None:
        loader.prepare(folder)
    file = folder / loader.place
    file.parent.mkdir(parents=True, exist_ok=True)

    def try_input(content: bytes) -> None:
        file.write_bytes(content)
        for read in loader.readers:
            try:
                read(file)
            except UserError as error:
                if not str(error).isprintable() or str(folder) not in str(error):
                    raise ValueError(f"not a clean message: {error}") from error

    corpus = folder / "corpus"
    corpus.mkdir()
    for i, content in enumerate(loader.seeds):
        (corpus / str(i)).write_bytes(content)
    longest = max(MAX_INPUT_BYTES, *(len(content) for content in loader.seeds))
    limits = (f"-timeout={MAX_SECONDS}", f"-rss_limit_mb={MAX_MIB}", f"-max_len={longest}")
    options = (
        f"-runs={args.inputs}",
        f"-seed={args.seed}",
        *limits,
        f"-artifact_prefix={Path.cwd()}{os.sep}",
    )
    atheris.Setup([sys.argv[0], *options, str(corpus)], try_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
