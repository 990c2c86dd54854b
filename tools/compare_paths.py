"""Train the same steps twice, plainly and as CUDA graphs, and compare the loss curves; needs a GPU."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import tyro

from common.errors import UserError
from common.io.json import write_json
from common.objective import Objective
from common.perceptual import random_lpips
from common.run_state import seed_everything
from common.trainer import shuffled
from data.packed_frame import pack
from main import setup
from main.config import ROOT
from main.jobs import training_job
from main.train_options import TrainArgs
from main.train_setup import make_fast, make_trainer

WINDOW = 20  # steps over which a curve is averaged: single frames differ more than paths


@dataclass(frozen=True)
class CompareArgs(setup.SubjectArgs):
    """Options of the comparison."""

    subject_id: Annotated[str, tyro.conf.arg(name="subject_id")] = "demo"
    """Name of a folder in data/subjects; `demo` (or `demo_full`, `demo_tiny`) is made on first use."""
    n_steps: int = 200
    """How many steps."""
    tolerance: float = 0.01
    """Largest allowed relative difference of the averaged curves."""
    no_lpips: bool = False
    """Without the perceptual loss; with it, its weights are random ones."""
    output: Path = ROOT / "output" / "compare_paths.json"
    """File of the curves."""


def main(args: CompareArgs) -> None:
    """Both curves; exit code 1 if they differ by more than the tolerance."""
    device = setup.choose_device(args.device)
    if device.type != "cuda":
        raise UserError("the paths differ on a GPU only; no CUDA device is in use")
    plain, plain_s = curve(args, device, is_plain=True)
    fast, fast_s = curve(args, device, is_plain=False)
    difference = max(abs(a - b) / a for a, b in zip(averaged(plain), averaged(fast), strict=True))
    write_json(args.output, {"plain": plain, "fast": fast, "difference": difference})
    print(f"{torch.cuda.get_device_name(device)}, {args.subject_id}, {args.n_steps} steps")
    print(
        f"plain: {1e3 * plain_s / args.n_steps:.1f} ms a step, total loss {plain[0]:.5f} -> {plain[-1]:.5f}"
    )
    print(f"fast:  {1e3 * fast_s / args.n_steps:.1f} ms a step, total loss {fast[0]:.5f} -> {fast[-1]:.5f}")
    print(f"largest difference of the curves (averages of {WINDOW} steps): {100 * difference:.3f} %")
    if not difference <= args.tolerance:
        sys.exit(f"the paths differ by more than {100 * args.tolerance:g} %")


def curve(args: CompareArgs, device: torch.device, is_plain: bool) -> tuple[list[float], float]:
    """Total loss of every step, and the seconds that the steps took."""
    seed_everything(args.seed)
    options = TrainArgs(
        **{name: getattr(args, name) for name in setup.SubjectArgs.__dataclass_fields__}, plain_step=True
    )
    subject = setup.open_subject(args)
    perceptual = None if args.no_lpips else random_lpips("vgg").to(device)
    job = training_job(options, subject, device)
    trainer = make_trainer(options, job, subject, perceptual, device)
    if not is_plain:
        objective = Objective(job.model, args.config.loss, job.initial_rgb, perceptual)
        make_fast(trainer, objective, is_fit=False, low_memory=False)
        if trainer.fast is None:
            raise UserError("fast steps do not work here")
    endless = (key for epoch in count() for key in shuffled(job.keys, args.seed, epoch))
    keys = list(islice(endless, args.n_steps))
    frames = {key: pack(subject.load(*key)).to(device) for key in dict.fromkeys(keys)}
    totals, start = [], time.perf_counter()
    for iteration, key in enumerate(keys):
        terms = trainer.step(frames[key], iteration)
        totals.append(torch.stack(list(terms.values())).sum())
    if trainer.fast is not None:
        trainer.fast.settle()
    curve = torch.stack(totals).tolist()
    return curve, time.perf_counter() - start


def averaged(curve: list[float]) -> list[float]:
    """Averages of WINDOW steps at a time."""
    return [sum(curve[i : i + WINDOW]) / len(curve[i : i + WINDOW]) for i in range(0, len(curve), WINDOW)]


if __name__ == "__main__":
    setup.run(CompareArgs, main, __doc__)
