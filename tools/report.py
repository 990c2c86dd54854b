"""Write what a training did as one HTML page: losses, photo against avatar, maps, turntable, numbers, options."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.errors import UserError
from main import setup
from main.report_page import write_subject_report


@dataclass(frozen=True)
class ReportArgs(setup.SubjectArgs):
    """Options of the report."""

    test_epoch: int | None = None
    """Epoch of the snapshot (default: the newest)."""
    output: Path | None = None
    """The page (default: output/report/<subject>.html)."""


def main(args: ReportArgs) -> None:
    """Write the page; it needs no other file and no network."""
    if args.output is not None and args.output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output {args.output}: the page's name ends in .html")
    device = setup.choose_device(args.device)
    path = write_subject_report(args, device, args.test_epoch, args.output)
    setup.logger.info("the report is %s", path)


if __name__ == "__main__":
    setup.run(ReportArgs, main, __doc__)
