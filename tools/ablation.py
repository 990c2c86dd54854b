"""Train the demo with parts of the method switched off and compare with the known truth (SPEC 16)."""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from common.checkpoint import newest_snapshot, read_snapshot
from common.command_line import parse
from common.demo.truth import Truth, cloth_error_mm, identity_color_error, silhouette_iou
from common.errors import UserError, run_command
from common.io.atomic import atomic_path
from common.io.json import write_json
from data.dataset import TEST, Subject
from main.config import ROOT, Config, Paths
from main.setup import FIT_SUFFIX, SubjectArgs, load_field, load_snapshot_person, subject_path

# Options of each variant: while training, and whenever its avatar is posed.
VARIANTS: dict[str, tuple[list[str], list[str]]] = {
    "full method": ([], []),
    # twice the epochs: about as many steps as with balanced sampling
    "no balanced sampling": (["--optim.unbalanced_sampling", "--optim.n_epochs", "10"], []),
    "no geometry weighting": (
        ["--loss.boundary", "1", "--loss.boundary_terms", "0", "--loss.captured_geometry", "1"],
        [],
    ),
    "no auxiliary colour": ([], ["--avatar.without_aux_rgb"]),
    "no pose-driven offsets": ([], ["--avatar.without_pose_offsets"]),
    "initialisation only": (["--initialise_only"], []),
}
METRICS = {
    "colour error": "mean absolute difference of the colours to the true albedo (lower is better)",
    "PSNR": "dB, refined avatar on unseen poses after pose fitting (higher is better)",
    "SSIM": "the same (higher is better)",
    "cloth error": "mm, loose cloth to its true place in unseen poses (lower is better)",
    "IoU": "silhouettes on unseen poses (higher is better)",
}


@dataclass(frozen=True)
class Args:
    """Options of the ablation."""

    output: Path = ROOT / "output" / "ablation"
    """Folder of all runs, the table and the plot; finished runs in it are not repeated."""
    subject_id: Literal["demo", "demo_tiny"] = "demo"
    """The demo subject; demo_tiny only shows that the command works."""
    n_seeds: int = 3
    """Trainings of each variant."""
    n_jobs: int = 1
    """Runs at the same time."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    subjects: Path = Paths().subjects
    """Folder of the subjects."""


@dataclass(frozen=True)
class Run:
    """One training of one variant."""

    args: Args
    variant: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where everything of this run is."""
        return self.args.output / f"{self.variant.replace(' ', '_')}_{self.seed}"

    def command(self, script: str, *options: str) -> None:
        """Run one of the project's commands for this variant; its output goes to log.txt."""
        common = [
            *("--subject_id", self.args.subject_id, "--device", self.args.device, "--seed", str(self.seed)),
            *("--paths.subjects", str(self.args.subjects), "--paths.output", str(self.folder)),
        ]
        environment = {**os.environ, "TQDM_MININTERVAL": "10"}
        with (self.folder / "log.txt").open("a") as log:
            status = subprocess.run(
                [sys.executable, str(ROOT / script), *common, *VARIANTS[self.variant][1], *options],
                stdout=log, stderr=log, env=environment, check=False,
            ).returncode  # fmt: skip
        if status != 0:
            raise UserError(
                f"{self.variant}, seed {self.seed}: {script} failed; see {self.folder / 'log.txt'}"
            )

    def results(self) -> dict[str, float]:
        """Train, fit, render and score, unless that is done already."""
        done = self.folder / "results.json"
        if done.is_file():
            return json.loads(done.read_text())
        self.folder.mkdir(parents=True, exist_ok=True)
        snapshots = self.folder / "model_dump" / self.args.subject_id
        renders = self.folder / "result" / (self.args.subject_id + FIT_SUFFIX)
        self.command("main/train.py", "--overwrite", "--no_report", *VARIANTS[self.variant][0])
        for stale in snapshots.with_name(snapshots.name + FIT_SUFFIX).glob("snapshot_*.pth"):
            stale.unlink()
        prepare = [
            sys.executable,
            str(ROOT / "tools/prepare_fit_pose_to_test.py"),
            "--root_path",
            str(snapshots),
        ]
        subprocess.run(prepare, stdout=subprocess.DEVNULL, check=True)
        self.command("main/train.py", "--fit_pose_to_test", "--continue")
        self.command("main/test.py", "--fit_pose_to_test")
        evaluate = [sys.executable, str(ROOT / "tools/eval_neuman.py"), "--output_path", str(renders)]
        evaluate += ["--subject_id", self.args.subject_id, "--paths.subjects", str(self.args.subjects)]
        subprocess.run(evaluate, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        figures = self.score(snapshots, renders)
        write_json(done, figures)
        return figures

    def score(self, snapshots: Path, renders: Path) -> dict[str, float]:
        """All metrics of a finished run."""
        config = parse(Config, None, VARIANTS[self.variant][1])
        person = SubjectArgs(
            self.args.subject_id, device="cpu", paths=Paths(self.args.subjects), config=config
        )
        source = newest_snapshot(snapshots)
        avatar = load_snapshot_person(person, read_snapshot(source), source).persona
        subject = self.args.subjects / self.args.subject_id
        truth = Truth.load(subject, len(avatar.mean_offset))
        indices = Subject(subject).frames(TEST)
        official = json.loads((renders / "evaluation.json").read_text())["protocols"]["official"]["mean"]
        return {
            "colour error": identity_color_error(avatar, truth),
            "PSNR": official["psnr"],
            "SSIM": official["ssim"],
            "cloth error": cloth_error_mm(avatar, truth, indices),
            "IoU": silhouette_iou(subject, renders, indices),
        }


def main() -> None:
    """Run what is missing, print the table, write ablation.json and ablation.png."""
    args = parse(Args, __doc__)
    if args.n_seeds < 1 or args.n_jobs < 1:
        raise UserError("--n_seeds and --n_jobs must be 1 or more")
    check_plotting()
    args.output.mkdir(parents=True, exist_ok=True)
    person = SubjectArgs(args.subject_id, paths=Paths(args.subjects))
    subject_path(person)  # subject and field are made here, not by all runs at once
    load_field(person)
    runs = [Run(args, variant, seed) for seed in range(args.n_seeds) for variant in VARIANTS]
    with ThreadPoolExecutor(args.n_jobs) as pool:
        figures = list(tqdm(pool.map(Run.results, runs), total=len(runs), desc="runs"))
    table: dict[str, dict[str, list[float]]] = {variant: {m: [] for m in METRICS} for variant in VARIANTS}
    for run, values in zip(runs, figures, strict=True):
        for metric in METRICS:
            table[run.variant][metric].append(values[metric])
    write_json(args.output / "ablation.json", table)
    plot(table, args.output / "ablation.png")
    print(markdown(table))


def markdown(table: dict[str, dict[str, list[float]]]) -> str:
    """Mean and standard deviation over seeds, as a Markdown table."""
    lines = ["| variant | " + " | ".join(METRICS) + " |", "|---|" + "---:|" * len(METRICS)]
    for variant, values in table.items():
        lines.append(f"| {variant} | " + " | ".join(cell(values[metric]) for metric in METRICS) + " |")
    return "\n".join([*lines, "", *(f"- {name}: {meaning}" for name, meaning in METRICS.items())])


def cell(values: list[float]) -> str:
    """Mean ± standard deviation of the sample."""
    mean = statistics.fmean(values)
    return f"{mean:.4g}" if len(values) < 2 else f"{mean:.4g} ± {statistics.stdev(values):.2g}"


def check_plotting() -> None:
    """Refuse to begin without the package of the plot: it would be missed only after hours."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("the plot needs matplotlib: pip install -r requirements-dev.txt")


def plot(table: dict[str, dict[str, list[float]]], path: Path) -> None:
    """One panel a metric: mean and standard deviation, every seed a dot."""
    from matplotlib.figure import Figure  # late: only developers have it

    figure = Figure(figsize=(3 * len(METRICS), 3.2), layout="constrained")
    axes = figure.subplots(1, len(METRICS), sharey=True)
    for axis, metric in zip(axes, METRICS, strict=True):
        for row, variant in enumerate(table):
            values = table[variant][metric]
            deviation = statistics.stdev(values) if len(values) > 1 else 0.0
            axis.errorbar(statistics.fmean(values), row, xerr=deviation, fmt="o", capsize=4, color="tab:blue")
            axis.plot(values, [row] * len(values), "k.", alpha=0.6)
        axis.margins(x=0.1)
        axis.grid(axis="x", alpha=0.3)
        axis.set_title(metric)
        axis.set_yticks(range(len(table)), list(table))
    axes[0].invert_yaxis()  # of all: they share it
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)


if __name__ == "__main__":
    run_command(main)
