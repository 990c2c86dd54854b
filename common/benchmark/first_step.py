"""From starting Python to the end of the first training step: run as a program, prints one line of JSON.

The first argument is the time when it was started (`time.time()`), the others are those of main/train.py.
"""

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    """Make one step and tell when each stage was done, in seconds since the start."""
    started = float(sys.argv.pop(1))
    done = {"python": time.time() - started}

    import torch

    from common.command_line import parse
    from common.run_state import seed_everything
    from common.trainer import shuffled
    from data.dataset import TRAIN_SPLITS
    from main import setup
    from main.jobs import training_job
    from main.train_options import TrainArgs
    from main.train_setup import make_trainer

    done["imports"] = time.time() - started
    args = parse(TrainArgs, __doc__)
    device = setup.choose_device(args.device)
    seed_everything(args.seed)
    subject = setup.open_subject(args)
    subject.check(TRAIN_SPLITS)
    done["subject checked"] = time.time() - started
    job = training_job(args, subject, device)
    done["model"] = time.time() - started
    trainer = make_trainer(args, job, subject, None, device)
    key = shuffled(trainer.keys, args.seed, 0)[0]
    frame = next(iter(trainer.frames([key])))
    trainer.step(frame, 0)
    trainer.settle()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    done["first step"] = time.time() - started
    sys.stdout.write(json.dumps(done) + "\n")


if __name__ == "__main__":
    main()
