"""Training steps of one way in a process of their own, so that the peak of memory is theirs alone.

Run as a program it prints one line of JSON. Arguments: the timed steps of each kind of frame, `lpips` or `no_lpips`
(with random weights, or without), then the options of main/train.py.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from common.benchmark.own_process import run_alone

WAYS = {  # options of main/train.py
    "fast": (),
    "fast, --low_memory": ("--low_memory",),
    "plain": ("--plain_step",),
    "deterministic": ("--deterministic",),
}


@dataclass(frozen=True)
class StepsAlone:
    """Median milliseconds of a step, and the most memory at any time: making the step's graphs, and as many frames
    as are kept, included. The generated frame is one that came late, and so may be kept on the host."""

    way: str
    captured: float
    generated: float
    tensors_mib: float | None  # of GPU memory, in tensors
    reserved_mib: float | None  # of GPU memory, taken by PyTorch
    host_mib: float  # of the process


def measure_alone(way: str, options: list[str], repeats: int, has_lpips: bool) -> StepsAlone:
    """Start a process that makes steps one of the `WAYS`; `options` are further ones of main/train.py."""
    arguments = [str(repeats), "lpips" if has_lpips else "no_lpips", *options, *WAYS[way]]
    return StepsAlone(way, **run_alone("common.benchmark.steps_alone", arguments, f"training steps ({way})"))


def main() -> None:
    """Make the steps and tell what they took."""
    repeats, has_lpips = int(sys.argv.pop(1)), sys.argv.pop(1) == "lpips"

    import torch

    from common.benchmark.timing import MIB, Timer, host_peak_mib
    from common.command_line import parse
    from common.determinism import make_deterministic, replace_pools
    from common.perceptual import random_lpips
    from common.run_state import seed_everything
    from main import setup
    from main.jobs import training_job
    from main.train_options import TrainArgs
    from main.train_setup import make_trainer

    args = parse(TrainArgs, __doc__)
    device = setup.choose_device(args.device)
    seed_everything(args.seed)
    if args.deterministic:
        make_deterministic(device)
    subject = setup.open_subject(args)
    perceptual = random_lpips("vgg").to(device) if has_lpips else None
    if perceptual is not None and args.deterministic and device.type == "cuda":
        replace_pools(perceptual)
    trainer = make_trainer(args, training_job(args, subject, device), subject, perceptual, device)
    is_fast, timer = trainer.fast is not None, Timer(device, repeats)
    found: dict[str, float | None] = {}
    photo, *generated = sorted(set(trainer.keys))
    if is_fast:
        for frame in trainer.frames([photo, generated[0]] * 3):  # makes the graphs, and then keeps all frames
            trainer.step(frame, 0)
        for _ in trainer.frames([photo, *generated]):
            pass
    for kind, key in (("captured", photo), ("generated", generated[-1])):
        (frame,) = trainer.frames([key])
        found[kind] = timer.median_ms(lambda frame=frame: trainer.step(frame, 0))  # type: ignore[misc]
        trainer.settle()
    if is_fast and trainer.fast is None:
        sys.exit("fast training steps do not work here")
    found["tensors_mib"] = torch.cuda.max_memory_allocated(device) / MIB if timer.is_cuda else None
    found["reserved_mib"] = torch.cuda.max_memory_reserved(device) / MIB if timer.is_cuda else None
    found["host_mib"] = host_peak_mib()
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
