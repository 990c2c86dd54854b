"""main/train.py from starting Python to the end of its first step: run as a program, prints one line of JSON.

The first argument is the time when it was started (`time.time()`), the second `lpips` or `no_lpips` (with random
weights, or without), the others are those of main/train.py, which ends, with nothing trained, after that step.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

AFTER = {"check_before_training": "checks", "make_job": "model", "make_trainer": "trainer"}


class _EnoughError(Exception):
    """The first step has been made."""


def main() -> None:
    """Tell when each stage was done, in seconds since the start."""
    started, has_lpips = float(sys.argv.pop(1)), sys.argv.pop(1) == "lpips"
    done = {"python": time.time() - started}

    def note(stage: str) -> None:
        done[stage] = time.time() - started

    def noting(function: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def noted(*args: Any, **options: Any) -> Any:
            result = function(*args, **options)
            note(stage)
            return result

        return noted

    from main import train

    note("imports")
    import torch

    from common.command_line import parse
    from common.perceptual import random_lpips
    from common.trainer import Trainer
    from main import setup

    if has_lpips:
        setup.load_perceptual = lambda _, device, *__: random_lpips("vgg").to(device)
    for name, stage in AFTER.items():
        setattr(train, name, noting(getattr(train, name), stage))
    make_step = Trainer.step

    def step_and_end(trainer: Trainer, *args: Any) -> None:
        make_step(trainer, *args)
        trainer.settle()
        if trainer.device.type == "cuda":
            torch.cuda.synchronize(trainer.device)
        note("first step")
        raise _EnoughError

    Trainer.step = step_and_end  # type: ignore[assignment, method-assign]
    try:
        train.main(parse(train.TrainArgs, train.__doc__))
    except _EnoughError:
        sys.stdout.write(json.dumps(done) + "\n")


if __name__ == "__main__":
    main()
