"""Measure rasterizer, training, its memory, animation, start-up and field; one table and one JSON file."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from common.benchmark.animation import AnimationTimes, measure_animation
from common.benchmark.many_frames import options_of, options_with_many_frames
from common.benchmark.rasterizer import RasterizerTimes, measure_rasterizers
from common.benchmark.scene import front_camera, posed_gaussians
from common.benchmark.start import measure_field, measure_start
from common.benchmark.steps_alone import WAYS, StepsAlone, measure_alone
from common.benchmark.table import as_json, as_table
from common.benchmark.timing import Timer, host_peak_mib, machine
from common.benchmark.training import StepTimes, measure_step, profile
from common.command_line import parse
from common.engine import Shot
from common.errors import UserError, run_command
from common.io.atomic import atomic_path
from common.motion import MotionOptions, load_motion
from common.objective import Objective
from common.perceptual import random_lpips
from common.run_state import seed_everything
from data.dataset import CAPTURED, GENERATED, Frame, Subject
from main import setup
from main.config import DEMO_BODY, ROOT, FieldConfig, Paths
from main.jobs import Job, training_job
from main.setup import choose_device, load_body
from main.train_options import TrainArgs
from main.train_setup import make_fast, make_trainer

STARTS = 5  # after the first, for which kernels may have to be compiled
FRAMES_AT_START = 1000
MANY_FRAMES = 200  # more than are kept on the device
Section = Literal["rasterizer", "training", "memory", "animation", "start", "field"]
SIZES = {"full": "demo_full", "bench": "demo_bench", "small": "demo", "tiny": "demo_tiny"}
RASTERIZER = {"full": (1024, 576, 2), "bench": (1024, 576, 2), "small": (320, 240, 1), "tiny": (96, 64, 0)}
PERCEPTUAL = {
    False: "Perceptual loss: VGG16 with random weights, which are as fast as the real ones.",
    True: "Training steps without perceptual loss and without stages (--quick).",
}
NOTES = [
    "The plain path is this repository's, in the same run; figures of the published system are not measured here.",
]


@dataclass(frozen=True)
class BenchmarkArgs:
    """Options of the benchmark."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    size: Literal["auto", "full", "bench", "small", "tiny"] = "auto"
    """Demo subject to measure on, made on first use: 1024 x 576 pixels and 221,484 Gaussians (full; bench: the same
    with few frames), small, or tiny; auto: bench on a GPU, small on a CPU, tiny with --quick."""
    only: str = "rasterizer,training,memory,animation,start,field"
    """What to measure, separated by commas."""
    quick: bool = False
    """As few repetitions as possible: to see that it works, not to quote."""
    repeats: int | None = None
    """Timed calls each, of which the median is shown (default: 100 on a GPU, 3 on a CPU)."""
    channels: tuple[int, ...] = (3, 8, 16, 32)
    """Numbers of channels of the rasterizer."""
    backend: str = "auto"
    """Rasterizer backend."""
    profile: Path | None = None
    """Write a torch profiler trace of training steps to this file."""
    output: Path = ROOT / "output" / "benchmark.json"
    """File of the results."""
    paths: Paths = field(default_factory=Paths)

    @property
    def sections(self) -> set[str]:
        """What to measure."""
        known = set(Section.__args__)  # type: ignore[attr-defined]
        chosen = {name.strip() for name in self.only.split(",") if name.strip()}
        if not chosen or chosen - known:
            raise UserError(
                f"--only {self.only}: give some of {', '.join(sorted(known))}, with commas between"
            )
        return chosen


def main(args: BenchmarkArgs) -> None:
    """Measure, print a table and write the results."""
    sections, device = args.sections, choose_device(args.device)
    size = args.size
    if size == "auto":
        size = "tiny" if args.quick else "bench" if device.type == "cuda" else "small"
    default = 100 if device.type == "cuda" else 3
    timer = Timer(device, args.repeats or (1 if args.quick else default))
    train = TrainArgs(SIZES[size], device=device.type, no_lpips=True, paths=args.paths)  # type: ignore[arg-type]
    results: dict[str, Any] = {
        "machine": machine(device),
        "size": size,
        "notes": [PERCEPTUAL[args.quick], *NOTES],
    }
    if "start" in sections:
        results["start"] = measure_start(train, *((10, 0) if args.quick else (FRAMES_AT_START, STARTS)))
    if "field" in sections:
        settings = FieldConfig(resolution=16, n_iterations=5) if args.quick else FieldConfig()
        results["field"] = measure_field(load_body(train, 0), settings, device)
    if "rasterizer" in sections:
        results["rasterizer"] = rasterizer(args, size, timer)
    if "memory" in sections:
        results["memory"] = memory(args, train, timer)
    if "animation" in sections:
        results["animation"] = animation(args, train, timer)
    if "training" in sections or args.profile is not None:
        results["training"] = training(args, train, timer)
    results["host_peak_mib"] = host_peak_mib()
    print(as_table(results))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(args.output) as temporary:
        temporary.write_text(json.dumps(as_json(results), indent=1) + "\n")
    print(f"written to {args.output}")


def memory(args: BenchmarkArgs, train: TrainArgs, timer: Timer) -> list[StepsAlone]:
    """Steps each way in a process of its own, of a subject with many frames; on a CPU there is one way."""
    if not timer.is_cuda:
        return [measure_alone("plain", options_of(train), timer.repeats, not args.quick)]
    few = max(1, timer.repeats // 10)
    repeats = {"plain": few, "deterministic": max(1, few // 3)}
    with options_with_many_frames(train, MANY_FRAMES) as options:
        return [measure_alone(way, options, repeats.get(way, timer.repeats), not args.quick) for way in WAYS]


def rasterizer(args: BenchmarkArgs, size: str, timer: Timer) -> list[RasterizerTimes]:
    """Every number of channels, this repository's and others."""
    height, width, subdivisions = RASTERIZER[size]
    gaussians = posed_gaussians(DEMO_BODY, timer.device, subdivisions)
    camera = front_camera(height, width, timer.device)
    return [
        row
        for n_channels in args.channels
        for row in measure_rasterizers(gaussians, camera, n_channels, timer, args.backend)
    ]


def new_job(train: TrainArgs, subject: Subject, device: torch.device) -> Job:
    """The avatar as training begins it: the same for each section, whatever was measured before."""
    seed_everything(train.seed)
    return training_job(train, subject, device)


def training(args: BenchmarkArgs, train: TrainArgs, timer: Timer) -> list[StepTimes]:
    """Captured and generated frames: the plain path, on a GPU also the fast one; and their stages."""
    device = timer.device
    subject = setup.open_subject(train)
    job = new_job(train, subject, device)
    perceptual = None if args.quick else random_lpips("vgg").to(device)
    objective = Objective(job.model, train.config.loss, job.initial_rgb, perceptual)
    frames = [subject.load(split, subject.frames(split)[0]) for split in (CAPTURED, GENERATED[0])]
    plain = make_trainer(replace(train, plain_step=True), job, subject, perceptual, device)
    few = replace(timer, repeats=max(1, timer.repeats // 10)) if timer.is_cuda else timer

    def rows(path: str, trainer: Any, timer: Timer) -> list[StepTimes]:
        return [measure_step(trainer, objective, frame, path, timer, not args.quick) for frame in frames]

    found = rows("plain", plain, few)
    traced, frame = plain, frames[0]
    if timer.is_cuda:
        fast = make_trainer(replace(train, plain_step=True), job, subject, perceptual, device)
        make_fast(fast, objective, is_fit=False, low_memory=False)
        found += rows("fast", fast, timer)
        traced = fast
    if args.profile is not None:
        trace(traced, frame, timer, args.profile, 1 if args.quick else 3)
    return found


def trace(trainer: Any, frame: Frame, timer: Timer, file: Path, n_steps: int) -> None:
    """The profiler's trace of a few steps."""
    file.parent.mkdir(parents=True, exist_ok=True)

    def step() -> None:
        trainer.step(frame, 0)
        trainer.settle()

    profile(step, timer, str(file), n_steps)


def animation(args: BenchmarkArgs, train: TrainArgs, timer: Timer) -> AnimationTimes:
    """The subject's own motion on white."""
    job = new_job(train, setup.open_subject(train), timer.device)
    motion = load_motion(setup.subject_path(train) / "motion", MotionOptions(), False, None)
    shots = [Shot(frame.params, frame.camera) for frame in motion.frames]
    n_frames = 3 if args.quick else 1000 if timer.is_cuda else 24
    n_plain = 2 if args.quick else 24 if timer.is_cuda else 4
    return measure_animation(job.model.persona.requires_grad_(False), shots, n_plain, n_frames)


if __name__ == "__main__":
    run_command(lambda: main(parse(BenchmarkArgs, __doc__)))
