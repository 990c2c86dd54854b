"""Measurements in a process of their own, so that start-up and the peak of memory are theirs alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from common.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "import sys; sys.path.insert(0, {root!r}); from {module} import main; main()"


def run_alone(module: str, arguments: list[str], what: str) -> dict[str, Any]:
    """The JSON object that `main()` of a module prints last; UserError, which begins with `what`, if it fails."""
    program = PROGRAM.format(root=str(ROOT), module=module)
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    lines = result.stdout.strip().splitlines()
    if result.returncode != 0 or not lines:
        raise UserError(f"{what} failed: {result.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found
