"""Fit, render and evaluate the demo's test frames; measure the cloth region against the truth (SPEC 14, 16)."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.command_line import parse
from common.demo.cloth_region import cloth_region_psnr
from common.errors import UserError, run_command
from common.io.json import write_json
from main.config import ROOT, Paths
from main.setup import FIT_SUFFIX

logger = logging.getLogger("avatar")


@dataclass(frozen=True)
class Args:
    """Options of the demo's evaluation."""

    subject_id: Literal["demo", "demo_full"] = "demo"
    """The demo subject; its avatar must have been trained."""
    untrained: bool = False
    """Evaluate the untrained avatar as well, in <output>/untrained."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    paths: Paths = field(default_factory=Paths)


def main() -> None:
    """Print one table and write it to <output>/result/<subject>_fit_pose_to_test/demo_evaluation.json."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    args = parse(Args, __doc__)
    rows = {"trained": evaluate(args, args.paths.output)}
    if args.untrained:
        output = args.paths.output / "untrained"
        run("main/train.py", *common_options(args, output), "--initialise_only", "--overwrite")
        rows["untrained"] = evaluate(args, output)
    result = args.paths.output / "result" / (args.subject_id + FIT_SUFFIX) / "demo_evaluation.json"
    write_json(result, rows)
    print(table(rows))


def common_options(args: Args, output: Path) -> list[str]:
    """Options that every command gets."""
    return [
        *("--subject_id", args.subject_id, "--device", args.device),
        *("--paths.subjects", str(args.paths.subjects), "--paths.output", str(output)),
    ]


def run(script: str, *options: str) -> None:
    """Run one of the project's commands; its own message tells what went wrong."""
    logger.info("python %s %s", script, " ".join(options))
    status = subprocess.run([sys.executable, str(ROOT / script), *options], check=False).returncode
    if status != 0:
        raise UserError(f"{script} ended with exit code {status}; see its message above")


def evaluate(args: Args, output: Path) -> dict[str, float]:
    """Fit the test poses of the newest snapshot below `output`, render and score: figure by name, in dB."""
    snapshots = output / "model_dump" / args.subject_id
    fitted = snapshots.with_name(snapshots.name + FIT_SUFFIX)
    renders = output / "result" / fitted.name
    options = common_options(args, output)
    run("tools/prepare_fit_pose_to_test.py", "--root_path", str(snapshots), "--overwrite")
    run("main/train.py", *options, "--fit_pose_to_test", "--continue")
    run("main/test.py", *options, "--fit_pose_to_test")
    run("main/test.py", *options, "--unfitted_test")
    run(
        "tools/eval_neuman.py",
        *("--output_path", str(renders), "--subject_id", args.subject_id, "--device", args.device),
        *("--paths.subjects", str(args.paths.subjects)),
    )
    protocols = json.loads((renders / "evaluation.json").read_text())["protocols"]
    subject = args.paths.subjects / args.subject_id
    return {
        "refined PSNR": protocols["official"]["mean"]["psnr"],
        "refined SSIM": protocols["official"]["mean"]["ssim"],
        "base PSNR": protocols["base_avatar"]["mean"]["psnr"],
        "refined PSNR, cloth region": cloth_region_psnr(subject, renders, refined=True),
        "base PSNR, cloth region": cloth_region_psnr(subject, renders, refined=False),
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    """The figures as a Markdown table."""
    lines = [f"| {'after pose fitting':28s} |" + "".join(f" {name:>9s} |" for name in rows)]
    lines.append(f"|{'-' * 30}|" + "".join(f"{'-' * 10}:|" for _ in rows))
    for figure in next(iter(rows.values())):
        lines.append(f"| {figure:28s} |" + "".join(f" {row[figure]:9.3f} |" for row in rows.values()))
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
