"""The subject of measurements in processes of their own, as it is or with many frames."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from data.dataset import CAPTURED, FRAME_LIST, GENERATED, Subject
from main import setup
from main.train_options import TrainArgs

FRAME_FILE = re.compile(r"(?P<index>[0-9]+)(?P<rest>[._].*)")


def options_of(train: TrainArgs) -> list[str]:
    """The options for a process of its own; the subject and the field are there afterwards."""
    setup.open_subject(train)
    setup.load_field(train)
    places = ["--paths.subjects", str(train.paths.subjects), "--paths.output", str(train.paths.output)]
    return ["--subject_id", train.subject_id, "--device", train.device, *places]


@contextmanager
def options_with_many_frames(train: TrainArgs, n_frames: int) -> Iterator[list[str]]:
    """As `options_of`, of a copy of the subject with `n_frames` generated frames; it is there within the block."""
    with TemporaryDirectory(dir=train.paths.subjects) as folder:
        _copy_with_many_frames(setup.subject_path(train), Path(folder) / train.subject_id, n_frames)
        yield [*options_of(train), "--paths.subjects", folder]


def _copy_with_many_frames(subject: Path, target: Path, n_frames: int) -> None:
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
