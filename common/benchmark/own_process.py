"""Measurements in a process of their own, so that start-up and the peak of memory are theirs alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from common.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "import sys; sys.path.insert(0, {root!r}); from {module} import main; main()"


def run_alone(module: str, arguments: list[str], what: str) -> dict[str, Any]:
    """The JSON object that `main()` of a module prints last; UserError, which begins with `what`, if it fails.

    Python may keep what it compiles, as it does by default: else each start would compile all of PyTorch.
    """
    program = PROGRAM.format(root=str(ROOT), module=module)
    keeps_bytecode = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=keeps_bytecode,
    )
    lines = result.stdout.strip().splitlines()
    if result.returncode != 0 or not lines:
        raise UserError(f"{what} failed: {result.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found
