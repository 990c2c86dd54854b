"""What a check-up finds: a list of facts, warnings and errors, each with what to do about it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from common.errors import UserError
from common.io.json import write_json

Level = Literal["ok", "warning", "error"]
Result = TypeVar("Result")
EXIT_CODES: dict[Level, int] = {"ok": 0, "warning": 1, "error": 2}
# Findings of one kind, and of one check, that are printed; the rest is counted.
_SHOWN, _SHOWN_OF_CHECK = 3, 15
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    topic: str  # heading it stands under
    check: str  # kind of finding: the same for all frames
    text: str  # what was found and where
    remedy: str = ""  # what to do; nothing for "ok"


@dataclass
class Findings:
    """All findings so far; new ones come under the heading `topic`."""

    topic: str = ""
    entries: list[Finding] = field(default_factory=list)

    def ok(self, check: str, text: str) -> None:
        """Note something that is as it should be."""
        self.entries.append(Finding("ok", self.topic, check, text))

    def warn(self, check: str, text: str, remedy: str) -> None:
        """Note something that works but gives worse results, or may be a mistake."""
        self.entries.append(Finding("warning", self.topic, check, text, remedy))

    def error(self, check: str, text: str, remedy: str) -> None:
        """Note something that stops the work or spoils its result."""
        self.entries.append(Finding("error", self.topic, check, text, remedy))

    def refused(self, check: str, message: str, remedy: str = "") -> None:
        """Note the message of a UserError; what follows its last semicolon is the remedy, unless one is given."""
        text, _, advice = message.rpartition("; ")
        if remedy or not text:
            self.error(check, message, remedy or "see README.md, 'Your own data'")
        else:
            self.error(check, text, advice)

    def attempt(self, check: str, work: Callable[[], Result], remedy: str = "") -> Result | None:
        """The work's result, or None and an error if it ends with a UserError."""
        try:
            return work()
        except UserError as error:
            self.refused(check, str(error), remedy)
            return None

    def count(self, level: Level) -> int:
        """How many findings of a level there are."""
        return sum(entry.level == level for entry in self.entries)

    @property
    def worst(self) -> Level:
        """The worst level found."""
        levels: tuple[Level, ...] = ("error", "warning")
        return next((level for level in levels if self.count(level)), "ok")

    @property
    def exit_code(self) -> int:
        """0: fine, 1: warnings, 2: errors."""
        return EXIT_CODES[self.worst]


def report(findings: Findings, show_all: bool = False) -> str:
    """The findings as a list under headings; of many of one kind the first few, unless `show_all`.

    Findings that differ in nothing but numbers (of frames, mostly) are of one kind.
    """
    lines: list[str] = []
    topic, n_hidden = "", 0
    seen: Counter[tuple[str, ...]] = Counter()
    for entry in findings.entries:
        if entry.topic != topic:
            topic = entry.topic
            lines += ["", topic]
        check = (entry.topic, entry.check, entry.level)
        kind = (*check, _NUMBER.sub("#", entry.text))
        is_shown = show_all or entry.level == "ok" or (seen[kind] < _SHOWN and seen[check] < _SHOWN_OF_CHECK)
        seen[kind] += 1
        if not is_shown:
            n_hidden += 1
            continue
        seen[check] += 1
        lines.append(f"  {entry.level:<8} {entry.check}: {entry.text}")
        lines += [f"           -> {entry.remedy}"] if entry.remedy else []
    if n_hidden:
        lines += ["", f"{n_hidden} more findings of the kinds above; --all or --json shows them"]
    return "\n".join([*lines, "", _summary(findings)]).lstrip("\n")


def _summary(findings: Findings) -> str:
    n_errors, n_warnings = findings.count("error"), findings.count("warning")
    if not n_errors and not n_warnings:
        return "all is well"
    return f"{n_errors} error{'s' * (n_errors != 1)}, {n_warnings} warning{'s' * (n_warnings != 1)}"


def as_json(findings: Findings) -> dict[str, Any]:
    """The findings for programs: worst level, exit code, counts, and every finding."""
    levels: tuple[Level, ...] = ("ok", "warning", "error")
    return {
        "worst": findings.worst,
        "exit_code": findings.exit_code,
        "counts": {level: findings.count(level) for level in levels},
        "findings": [asdict(entry) for entry in findings.entries],
    }


def write_report(path: Path, findings: Findings) -> None:
    """Write `as_json` to a file."""
    write_json(path, as_json(findings))
