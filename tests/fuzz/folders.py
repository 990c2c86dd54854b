"""Breaking whole subject folders: files lost, swapped, emptied, turned into folders, pipes and links."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from common.errors import UserError
from common.evaluation import find_ground_truth
from common.io.json import write_json
from data.dataset import GENERATED, TEST, TRAIN_SPLITS, Subject
from tests.data.tiny_subject import HEIGHT, PATCH, WIDTH, write_subject
from tests.fuzz.mutations import NOISE

KEPT = {"captured": 0, "generated_0": 0, "generated_1": 1, "test": 3}  # one frame a split is enough
OUTSIDE = "outside"  # a folder beside the subject, with files that it must never read
SUBJECT = "subject"


def write_folders(box: Path) -> Path:
    """A whole subject, and beside it a copy that its links may lead to."""
    subject = write_subject(box / SUBJECT)
    for split, index in KEPT.items():
        for path in (subject / split).rglob("[0-9]*"):
            if path.stem.partition("_")[0] != str(index):
                path.unlink()
    for split in GENERATED:
        (subject / split / "frame_idx_list.txt").write_text(f"{KEPT[split]}\n")
    write_json(subject / "test/images" / f"{KEPT[TEST]}_bbox_orig.json", [1, 2, WIDTH, HEIGHT])
    write_json(subject / "test/images/img_shape_orig.json", [40, 40])
    shutil.copytree(subject, box / OUTSIDE)
    return subject


def read_subject(root: Path) -> Any:
    """Everything that the project reads of a subject."""
    subject = Subject(root, PATCH)
    splits = (*TRAIN_SPLITS, TEST)
    problems = subject.problems(splits, n_vertices=12)
    first: UserError | None = None
    reads: list[Callable[[], Any]] = [
        lambda: subject.identity,
        subject.textures,
        lambda: find_ground_truth(root),
    ]
    reads += [lambda split=split: subject.smplx_params([split]) for split in splits]
    reads += [lambda split=split: subject.load(split, KEPT[split]) for split in splits]
    for read in reads:
        try:
            read()
        except UserError as error:
            first = first or error
    if first is None and problems:
        first = UserError(problems[0])
    if first is not None:
        raise first


@dataclass(frozen=True)
class Changes:
    """Some changes to a folder, each from its own random numbers."""

    n: int
    noise: random.Random

    def apply(self, root: Path) -> None:
        """Change the folder."""
        for _ in range(self.n):
            paths = sorted(root.rglob("*"), key=str)
            if paths:
                self.noise.choice(_CHANGES)(self.noise.choice(paths), self.noise, root)


def folder_changes() -> st.SearchStrategy[Changes]:
    """One to three changes."""
    return st.builds(Changes, st.integers(1, 3), NOISE)


def _remove(path: Path, *_: Any) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _empty(path: Path, *_: Any) -> None:
    if path.is_file():
        _replace(path, b"")


def _replace(path: Path, content: bytes) -> None:
    path.unlink()  # files may be hard links to the original
    path.write_bytes(content)


def _flip(path: Path, noise: random.Random, _: Path) -> None:
    if path.is_file() and path.stat().st_size:
        content = bytearray(path.read_bytes())
        for _i in range(noise.randint(1, 4)):
            content[noise.randrange(len(content))] ^= 1 << noise.randrange(8)
        _replace(path, bytes(content[: noise.choice((len(content), noise.randrange(len(content))))]))


def _swap(path: Path, noise: random.Random, root: Path) -> None:
    other = noise.choice([entry for entry in root.rglob("*") if entry.is_file()] or [path])
    if path.is_file() and other.is_file():
        first, second = path.read_bytes(), other.read_bytes()
        _replace(path, second)
        _replace(other, first)


def _to_folder(path: Path, *_: Any) -> None:
    _remove(path)
    path.mkdir()


def _to_file(path: Path, noise: random.Random, _: Path) -> None:
    _remove(path)
    path.write_bytes(noise.choice((b"", b"0", b"../x", b"[0, 0, 1, 1]")))


def _to_pipe(path: Path, *_: Any) -> None:
    _remove(path)
    os.mkfifo(path)


def _to_link(path: Path, noise: random.Random, root: Path) -> None:
    relative = path.relative_to(root)
    _remove(path)
    outside = root.parent / OUTSIDE / relative
    targets = (
        outside,
        os.path.relpath(outside, path.parent),
        path.name,
        "/dev/zero",
        "/",
        "nowhere",
        root,
        path.parent,
    )
    path.symlink_to(noise.choice(targets))


def _odd_name(path: Path, noise: random.Random, _: Path) -> None:
    names = ("00", "-1", "1e3", "\u0663", "9" * 200, "x\x1b[2J", "999999999", " 0", "0.png", "\udcff")
    new = path.with_name(noise.choice(names) + path.suffix)
    if not new.exists():
        path.rename(new)


def _list(path: Path, noise: random.Random, root: Path) -> None:
    file = root / noise.choice(("generated_0", "generated_1")) / "frame_idx_list.txt"
    words = (
        "../../outside/captured/0",
        "..",
        "/etc/passwd",
        "0/../1",
        "999999999",
        "-0",
        "\u0662",
        "0 0",
        "7",
        "1e1",
        "2.0",
    )
    if file.is_file():
        _replace(file, noise.choice(words).encode())


_CHANGES = (
    _remove,
    _empty,
    _flip,
    _flip,
    _swap,
    _swap,
    _to_folder,
    _to_file,
    _to_pipe,
    _to_link,
    _to_link,
    _odd_name,
    _list,
)
