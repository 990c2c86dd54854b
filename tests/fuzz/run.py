"""Give every reader of files broken and hostile inputs, and print what came of it.

An input must be loaded, or refused with one line that names the file; anything else is a finding: another exception,
a warning, code that ran, a file opened elsewhere, over 5 seconds, over twice the memory of an honest file of that size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

FINDINGS = ROOT / "tests/fuzz/test_findings.py"
LOADERS = (
    "subject folder", "json", "obj", "mp4", "pth (snapshot)", "frame list", "safetensors", "npy",
    "npz (SMPL-X)", "npz (body)", "pkl", "png", "pth (LPIPS)", "motion .npz", "motion .json", "motion .pkl",
    "motion .pt",
)  # fmt: skip
WORKER_SECONDS = 3600


@dataclass(frozen=True)
class Args:
    """Options of the run."""

    inputs: int = 1000
    """Inputs for each loader."""
    seed: int = 0
    """Another seed gives other inputs."""
    loaders: tuple[str, ...] = LOADERS
    """Which loaders to try."""
    n_processes: int = 2
    """Loaders that are tried at the same time."""


def run(n_inputs: int, seed: int, loaders: tuple[str, ...], n_processes: int = 2) -> list[dict[str, Any]]:
    """Reports of some loaders, each as in tests/fuzz/worker.py."""
    shares = [loaders[i::n_processes] for i in range(n_processes)]
    with ThreadPoolExecutor(n_processes) as pool:
        parts = pool.map(lambda share: _run_share(n_inputs, seed, share), shares)
    return [report for part in parts for report in part]


def _run_share(n_inputs: int, seed: int, loaders: tuple[str, ...]) -> list[dict[str, Any]]:
    """Try some loaders one after the other; a process that dies is a finding, and the next one goes on."""
    reports: list[dict[str, Any]] = []
    while len(reports) < len(loaders):
        left = loaders[len(reports) :]
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "empty").mkdir()
            report_file = Path(folder) / "report.jsonl"
            command = [
                sys.executable,
                "-m",
                "tests.fuzz.worker",
                str(report_file),
                str(n_inputs),
                str(seed),
                *left,
            ]
            done = subprocess.run(
                command, cwd=Path(folder) / "empty", capture_output=True, text=True, timeout=WORKER_SECONDS,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            )  # fmt: skip
            lines = report_file.read_text().splitlines() if report_file.is_file() else []
        reports += [json.loads(line) for line in lines]
        if len(lines) < len(left):
            end = done.stderr.strip().splitlines()[-12:]
            finding = f"the process ended with {done.returncode}: {' | '.join(end)}"
            reports.append(_empty_report(left[len(lines)], finding))
    return reports


def _empty_report(loader: str, finding: str) -> dict[str, Any]:
    counts = dict.fromkeys(("tried", "loaded", "refused", "slowest_s", "peak_bytes"), 0)
    return {"loader": loader, **counts, "findings": [finding]}


def table(reports: list[dict[str, Any]]) -> str:
    """A line for each loader and one for all, in Markdown."""
    head = "| loader | inputs | loaded | refused | findings | slowest, ms | peak memory, MiB |"
    lines = [head, "|---|---:|---:|---:|---:|---:|---:|"]
    for report in reports:
        lines.append(
            f"| {report['loader']} | {report['tried']} | {report['loaded']} | {report['refused']} "
            f"| {len(report['findings'])} | {1000 * report['slowest_s']:.0f} | {report['peak_bytes'] / 2**20:.1f} |"
        )
    sums = [sum(report[key] for report in reports) for key in ("tried", "loaded", "refused")]
    n_findings = sum(len(report["findings"]) for report in reports)
    slowest = max((report["slowest_s"] for report in reports), default=0.0)
    peak = max((report["peak_bytes"] for report in reports), default=0)
    lines.append(
        f"| all | {sums[0]} | {sums[1]} | {sums[2]} | {n_findings} | {1000 * slowest:.0f} | {peak / 2**20:.1f} |"
    )
    return "\n".join(lines)


def main() -> None:
    """Print the table and the findings; exit code 1 if there are any."""
    import tyro

    args = tyro.cli(Args, description=__doc__, use_underscores=True)
    unknown = [name for name in args.loaders if name not in LOADERS]
    if unknown:
        sys.exit(f"no loader {unknown[0]!r}; there are: {', '.join(LOADERS)}")
    reports = run(args.inputs, args.seed, args.loaders, args.n_processes)
    print(table(reports))
    n_fixed = FINDINGS.read_text().count("\ndef test_")
    print(f"{n_fixed} findings of earlier runs are fixed, each with its test in {FINDINGS.relative_to(ROOT)}")
    for report in reports:
        for finding in report["findings"]:
            print(f"{report['loader']}: {finding}")
    sys.exit(any(report["findings"] for report in reports))


if __name__ == "__main__":
    main()
