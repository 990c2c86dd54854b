"""Command lines from dataclasses, with one convention for all commands (SPEC 2, 17)."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from typing import TypeVar

from common.errors import UserError

Args = TypeVar("Args")
_MAX_SUGGESTIONS = 3
_OPTION = re.compile(r"(?<!\S)--[\w.]+")


class _PlainText(io.StringIO):
    """An output that is no terminal and takes every character: texts in it look the same everywhere."""

    encoding = "utf-8"


def parse(args_type: type[Args], description: str | None, args: Sequence[str] | None = None) -> Args:
    """The options in `args` (default: this process's own) as a dataclass; UserError for a wrong one.

    Option names keep their underscores; a flag has no negative twin. --help prints its text and exits.
    """
    import tyro  # late: importing it is slow

    def cli() -> Args:
        return tyro.cli(
            args_type,
            args=args,
            description=description,
            use_underscores=True,
            config=(tyro.conf.FlagCreatePairsOff,),
        )

    said = _PlainText()
    try:
        with contextlib.redirect_stdout(_PlainText()), contextlib.redirect_stderr(said):
            return cli()
    except SystemExit as stop:
        if stop.code:
            raise UserError(one_line(said.getvalue())) from None
    return cli()  # help: once more, in the look of the terminal


def one_line(box: str) -> str:
    """The message in one of tyro's framed error texts: what is wrong, options that may be meant, and --help."""
    lines = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    message, *others = (" ".join(part.split()) for part in re.split(r"─{3,}", "\n".join(lines)))
    unknown = "".join(f"; {part}" for part in others if part.startswith("Unrecognized options"))
    similar = [name for part in others if "Perhaps you meant" in part for name in _OPTION.findall(part)]
    perhaps = ", ".join(dict.fromkeys(similar[:_MAX_SUGGESTIONS]))
    hint = f"perhaps {perhaps} is meant; " if perhaps else ""
    return f"{message.removesuffix('.')}{unknown}; {hint}--help lists all options"
