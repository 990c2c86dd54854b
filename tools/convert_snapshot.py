"""Convert a snapshot between the published .pth layout and .safetensors, without loss of weights (SPEC 5)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.checkpoint import SAFE_SUFFIX, Snapshot, read_snapshot, save_snapshot
from common.command_line import parse
from common.errors import UserError, run_command
from common.safe_snapshot import write_safe_snapshot

NO_OPTIMIZER: dict[str, Any] = {"state": {}, "param_groups": []}


@dataclass(frozen=True)
class Args:
    """Options of the conversion; the direction follows from the file names."""

    source: Path
    """A snapshot: snapshot_E.pth or .safetensors."""
    output: Path | None = None
    """The converted file (default: beside the source, with the other suffix)."""
    overwrite: bool = False
    """Replace the output if it exists."""


def convert(source: Path, output: Path) -> None:
    """Read one form and write the other; a .pth made from .safetensors has no optimiser state to go on from."""
    snapshot = read_snapshot(source)
    if output.suffix == SAFE_SUFFIX:
        write_safe_snapshot(output, snapshot)
    else:
        save_snapshot(output, Snapshot(snapshot.epoch, snapshot.network, snapshot.optimizer or NO_OPTIMIZER))


def main() -> None:
    """Convert one file."""
    args = parse(Args, __doc__)
    suffixes = {".pth": SAFE_SUFFIX, SAFE_SUFFIX: ".pth"}
    if args.source.suffix not in suffixes:
        raise UserError(f"--source {args.source}: the name must end in .pth or {SAFE_SUFFIX}")
    output = args.output or args.source.with_suffix(suffixes[args.source.suffix])
    if output.suffix not in suffixes:
        raise UserError(f"--output {output}: the name must end in .pth or {SAFE_SUFFIX}")
    if output.exists() and not args.overwrite:
        raise UserError(f"{output} exists; give --overwrite to replace it, or another --output")
    convert(args.source, output)
    print(f"{args.source} -> {output}")


if __name__ == "__main__":
    run_command(main)
