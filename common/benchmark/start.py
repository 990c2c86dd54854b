"""Start-up time, and the time to prepare the skinning field."""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from common.benchmark.own_process import run_alone
from common.body_model.body import BodyModel
from common.skinning_field import build_skinning_field
from data.dataset import CAPTURED, FRAME_LIST, GENERATED, Subject
from data.files_state import NEW_NS
from main import setup
from main.config import FieldConfig
from main.train_options import TrainArgs

FRAME_FILE = re.compile(r"(?P<index>[0-9]+)(?P<rest>[._].*)")


@dataclass(frozen=True)
class StartTimes:
    """Seconds from starting Python until each stage was done; each start is a new process."""

    cold: dict[str, float]  # the first time: kernels may have to be compiled
    warm: list[dict[str, float]]  # again
    with_lpips: list[dict[str, float]]  # VGG16 with random weights; the first as in `cold`
    n_frames: int
    many_frames: list[dict[str, float]]  # of so many generated frames; the first reads and checks all files
    torch_alone: dict[str, float]  # a process with nothing but PyTorch, after those


def measure_start(train: TrainArgs, n_frames: int, n_more: int) -> StartTimes:
    """Processes of main/train.py up to their first training step; the subject and the field are there before."""
    options = options_of(train)
    cold, warm = _start("no_lpips", options), [_start("no_lpips", options) for _ in range(n_more)]
    with_lpips = [_start("lpips", options) for _ in range(n_more)]
    with TemporaryDirectory(dir=train.paths.subjects) as folder:
        with_many_frames(setup.subject_path(train), Path(folder) / train.subject_id, n_frames)
        time.sleep(NEW_NS / 1e9)  # nothing is kept of newer files
        moved = [*options, "--paths.subjects", folder]
        many_frames = [_start("no_lpips", moved) for _ in range(1 + n_more)]
    alone = run_alone("common.benchmark.torch_alone", [str(time.time()), train.device], "PyTorch alone")
    return StartTimes(cold, warm, with_lpips, n_frames, many_frames, alone)


def options_of(train: TrainArgs) -> list[str]:
    """The options for a process of its own; the subject and the field are there afterwards."""
    setup.open_subject(train)
    setup.load_field(train)
    places = ["--paths.subjects", str(train.paths.subjects), "--paths.output", str(train.paths.output)]
    return ["--subject_id", train.subject_id, "--device", train.device, *places]


def with_many_frames(subject: Path, target: Path, n_frames: int) -> None:
    """A copy of a subject with `n_frames` generated frames, all of them a split's first one; its files are linked."""
    shutil.copytree(subject / CAPTURED, target / CAPTURED, copy_function=os.link)
    for part, split in enumerate(GENERATED):
        first, n = Subject(subject).frames(split)[0], (n_frames + part) // len(GENERATED)

        def link(path: str, place: str, first: int = first, n: int = n) -> None:
            file = FRAME_FILE.fullmatch(Path(path).name)
            if file is None:
                os.link(path, place)
            elif int(file["index"]) == first:
                for i in range(n):
                    os.link(path, Path(place).with_name(f"{i}{file['rest']}"))

        shutil.copytree(
            subject / split, target / split, copy_function=link, ignore=shutil.ignore_patterns(FRAME_LIST)
        )
        (target / split / FRAME_LIST).write_text("".join(f"{i}\n" for i in range(n)))


def _start(lpips: str, options: list[str]) -> dict[str, float]:
    with TemporaryDirectory() as output:
        arguments = [str(time.time()), lpips, *options, "--paths.output", output]
        return run_alone("common.benchmark.first_step", arguments, "the first step")


def measure_field(body: BodyModel, settings: FieldConfig, device: torch.device) -> float:
    """Seconds to compute the field of a body on a device, in memory, after a warm-up at a low resolution."""
    vertices = body.neutral_vertices(None, jaw_open=False).to(device)
    weights = body.skinning_weights.to(device)
    build_skinning_field(vertices, weights, FieldConfig(resolution=8, n_iterations=2), progress=False)
    start = time.perf_counter()
    field = build_skinning_field(vertices, weights, settings, progress=False)
    float(field.weights[0, 0, 0, 0])  # waits for the device
    return time.perf_counter() - start
