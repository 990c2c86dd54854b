"""A subject's folder: its frames, identity and textures, checked before anything is computed (SPEC 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.body_model.identity import Identity
from common.errors import UserError
from common.in_thread import in_thread
from common.io.files import FRAME_INDEX, inside, open_file
from common.io.image import check_image, read_mask, read_rgb
from common.io.json import read_numbers
from common.io.kept_array import kept_array
from common.io.parameters import pack_params, read_smplx_params, unpack_params
from common.joints import N_JOINTS, N_SHAPE
from common.perceptual_crop import Box
from common.pose import SmplxParams
from data.files_state import files_state
from data.frame import CAPTURED, Frame, FrameFiles, FrameKey, failures, frame_problems, load_frame

GENERATED = ("generated_0", "generated_1")
TRAIN_SPLITS = (CAPTURED, *GENERATED)
TEST = "test"
FRAME_LIST = "frame_idx_list.txt"
FACE_PATCH_SIZE = 256  # pixels
_TEXTURE, _TEXTURE_MASK, _SEG = "smplx_texture_inpaint.png", "smplx_texture_mask.png", "smplx_seg_inpaint.png"
_DATA = Path(__file__).resolve().parent
_SOME = 3  # this many problems are told in one line


@dataclass(frozen=True)
class Textures:
    """The textures that colours start from, in the body's UV space; RGB in [0, 1]."""

    rgb: Tensor  # (3, T, T) the photo where it shows the surface, else the generated video
    rgb_aux: Tensor  # (3, T, T) the generated video
    seg: Tensor  # (3, T, T) part colours

    def to(self, device: torch.device | str) -> Textures:
        """The same textures on another device."""
        return Textures(self.rgb.to(device), self.rgb_aux.to(device), self.seg.to(device))


class Subject:
    """A subject's folder. Nothing is read before it is asked for; whatever is wrong is a UserError.

    kept: a folder for what thousands of small files gave, so that they are read again only when one has changed.
    """

    def __init__(self, root: Path, face_patch_size: int = FACE_PATCH_SIZE, kept: Path | None = None) -> None:
        self.root = root
        self.face_patch_size = face_patch_size
        self.kept = kept
        self._ahead: dict[FrameKey, Future[Frame]] = {}
        self._states: dict[str, str | None] = {}  # of the splits' files

    def _path(self, *parts: str) -> Path:
        """A file or folder of the subject; UserError if it is a link that leads out of the subject's folder."""
        return inside(self.root, self.root.joinpath(*parts))

    def frames(self, split: str) -> list[int]:
        """Frame indices in increasing order: the listed ones of a generated split, all of the others."""
        folder = self._path(split)
        if not folder.is_dir():
            raise UserError(f"missing split: {folder}; a subject has {', '.join(TRAIN_SPLITS)} and {TEST}")
        if split in GENERATED:
            return _read_frame_list(self._path(split, FRAME_LIST))
        indices = set().union(
            *(_indices(self._path(split, kind)) for kind in ("images", "masks", "cam_params"))
        )
        if not indices:
            raise UserError(f"no frames in {folder / 'images'}: expected <i>.png with i = 0, 1, 2, ...")
        return sorted(indices)

    def load(self, split: str, index: int) -> Frame:
        """Read one frame."""
        ahead = self._ahead.pop((split, index), None)
        return self._read(split, index) if ahead is None else ahead.result()

    def read_ahead(self, split: str, index: int) -> None:
        """Begin to read a frame in a thread, for the next `load` of it."""
        self._ahead[split, index] = in_thread(self._read, split, index)

    def _read(self, split: str, index: int) -> Frame:
        return load_frame(FrameFiles(self.root, split, index), self.face_patch_size)

    def mask_box(self, key: FrameKey) -> tuple[int, ...]:
        """Height and width of a frame's mask; first and last row and column of the person, ends exclusive."""
        mask = read_mask(FrameFiles(self.root, *key).mask)[0] > 0
        return (*mask.shape, *Box.around(mask))

    def smplx_params(self, splits: Sequence[str] = TRAIN_SPLITS) -> dict[str, dict[int, SmplxParams]]:
        """SMPL-X parameters of every parameter file of the splits, also of frames that are not listed."""
        return {
            split: unpack_params(self.kept_array("params", (split,), partial(self._packed_params, split)))
            for split in splits
        }

    def _packed_params(self, split: str) -> np.ndarray:
        return pack_params({i: read_smplx_params(path) for i, path in self._param_files(split)})

    def kept_text(self, name: str, splits: Sequence[str], compute: Callable[[], str]) -> str:
        """`compute()`, or what it gave when the files of the splits and this code were as they are."""

        def encoded() -> np.ndarray:
            return np.frombuffer(compute().encode(), np.uint8)

        return self.kept_array(name, splits, encoded).tobytes().decode()

    def kept_array(
        self, name: str, splits: Sequence[str], compute: Callable[[], np.ndarray], of: object = ""
    ) -> np.ndarray:
        """As `kept_text`, an array; `of`: what else it depends on."""
        state = self._state(splits)
        if self.kept is None or state is None:
            return compute()
        return kept_array(self.kept, f"{name}_{'_'.join(splits)}", f"{state} {of}", compute, is_only=True)

    def _state(self, splits: Sequence[str]) -> str | None:
        """What changes with every change of the splits' files or of this code; None if that cannot be told."""
        if self.kept is None:
            return None
        for split in splits:
            if split not in self._states:
                self._states[split] = files_state([self.root / split])
        states = [self._states[split] for split in splits] + [_code_state()]
        return f"{self.face_patch_size} {' '.join(map(str, states))}" if all(states) else None

    @property
    def identity(self) -> Identity:
        """Shape coefficients and offsets, fitted to the photo."""
        arrays = {
            name: self.kept_array(name, (CAPTURED,), partial(_read_array, *entry))
            for name, entry in self._identity_files().items()
        }
        return Identity(**{name: torch.from_numpy(array) for name, array in arrays.items()})

    def textures(self) -> Textures:
        """Captured colour where its mask is over 0, else generated; part colours of the generated texture."""
        captured, captured_mask, generated, seg = self._texture_files()
        rgb_aux = read_rgb(generated)
        size = (rgb_aux.shape[1], rgb_aux.shape[2])
        is_captured = read_rgb(captured_mask, size)[:1] > 0
        rgb = torch.where(is_captured, read_rgb(captured, size), rgb_aux)
        return Textures(rgb, rgb_aux, read_rgb(seg, size))

    def check(self, splits: Sequence[str] = TRAIN_SPLITS, n_vertices: int | None = None) -> None:
        """Refuse a subject with problems before anything is computed: one UserError with the first few."""
        self.refuse(self.problems(splits, n_vertices))

    def check_frames(self, keys: Sequence[FrameKey]) -> None:
        """`check` of some frames' own files alone, without identity and textures."""
        files = [FrameFiles(self.root, split, index) for split, index in keys]
        self.refuse([problem for entry in files for problem in frame_problems(entry, self.face_patch_size)])

    def refuse(self, problems: list[str]) -> None:
        """UserError with the first few of the subject's problems, if there are any."""
        if problems:
            n_rest = len(problems) - _SOME
            rest = f"; and {n_rest} more problems, see all with tools/doctor.py --subject_id {self.root.name}"
            raise UserError("; ".join(problems[:_SOME]) + (rest if n_rest > 0 else ""))

    def problems(self, splits: Sequence[str] = TRAIN_SPLITS, n_vertices: int | None = None) -> list[str]:
        """All that is wrong with the splits' files; identity and textures are looked at with `captured`.

        Fast: json files and the headers and checksums of the rest. `n_vertices` is the body's V.
        """
        if not self.root.is_dir():
            return [f"missing folder: {self.root}"]
        problems: list[str] = []
        if CAPTURED in splits and (self.root / CAPTURED).is_dir():
            problems += self._identity_problems(n_vertices) + self._texture_problems()
        for split in splits:
            try:
                listed, files = self.frames(split), self._param_files(split)
            except UserError as error:
                problems.append(str(error))
                continue
            for index in listed:
                problems += frame_problems(FrameFiles(self.root, split, index), self.face_patch_size)
            problems += failures(*(partial(read_smplx_params, path) for i, path in files if i not in listed))
        return problems

    def check_identity(self, n_vertices: int | None) -> None:
        """Refuse an identity of a body with other than `n_vertices` vertices; None: of any."""
        if n_vertices is not None:
            self.identity_of(n_vertices)

    def identity_of(self, n_vertices: int) -> Identity:
        """The identity; UserError if it is of a body with other than `n_vertices` vertices."""
        identity = self.identity
        n_rows = identity.face_offset.shape[0]
        if n_rows != n_vertices:
            path = self.root / CAPTURED / "smplx_optimized" / "face_offset.json"
            raise UserError(
                f"{path} is for a body with {n_rows} vertices, the body model here has {n_vertices}; "
                "use the body model that the subject was fitted with (--human_model_path)"
            )
        return identity

    def _identity_problems(self, n_vertices: int | None) -> list[str]:
        try:
            files = self._identity_files()
        except UserError as error:  # a link that leads out
            return [str(error)]
        problems = failures(*(partial(read_numbers, *entry) for entry in files.values()))
        return problems or failures(lambda: self.check_identity(n_vertices))

    def _texture_problems(self) -> list[str]:
        try:
            files = self._texture_files()
        except UserError as error:
            return [str(error)]
        problems = failures(*(partial(check_image, path) for path in files))
        return problems or failures(
            *(partial(check_image, path, check_image(files[0])) for path in files[1:])
        )

    def _identity_files(self) -> dict[str, tuple[Path, tuple[int, ...]]]:
        """File and shape of each part of the identity."""
        files = {
            "shape": ("shape_param.json", (N_SHAPE,)),
            "face_offset": ("face_offset.json", (-1, 3)),
            "joint_offset": ("joint_offset.json", (N_JOINTS, 3)),
        }
        return {
            entry: (self._path(CAPTURED, "smplx_optimized", name), shape)
            for entry, (name, shape) in files.items()
        }

    def _texture_files(self) -> tuple[Path, Path, Path, Path]:
        names = (
            (CAPTURED, _TEXTURE),
            (CAPTURED, _TEXTURE_MASK),
            (GENERATED[0], _TEXTURE),
            (GENERATED[0], _SEG),
        )
        first, second, third, last = (self._path(split, "smplx_optimized", name) for split, name in names)
        return first, second, third, last

    def _param_files(self, split: str) -> list[tuple[int, Path]]:
        """(frame, file) of every parameter file of a split, in numeric order."""
        folder = self._path(split, "smplx_optimized", "smplx_params")
        if not folder.is_dir():
            raise UserError(f"missing folder: {folder}; put the split's SMPL-X parameters there")
        return [(index, inside(self.root, folder / f"{index}.json")) for index in sorted(_indices(folder))]


@cache
def _code_state() -> str | None:
    """Of the modules that read and check a subject."""
    return files_state([*(_DATA.parent / "common").rglob("*.py"), *_DATA.glob("*.py")])


def training_list(subject: Subject, is_balanced: bool = True) -> list[FrameKey]:
    """One epoch, unshuffled: captured frames as often as there are generated frames, then those (SPEC 13).

    Not balanced: every frame once.
    """
    generated = [(split, i) for split in GENERATED for i in subject.frames(split)]
    n_repeats = len(generated) if is_balanced else 1
    return [(CAPTURED, i) for i in subject.frames(CAPTURED)] * n_repeats + generated


def rendering_list(subject: Subject) -> list[FrameKey]:
    """Frames that are rendered after training, each once."""
    return [(split, i) for split in TRAIN_SPLITS for i in subject.frames(split)]


def fitting_list(subject: Subject, n_repeats: int = 1) -> list[FrameKey]:
    """Frames of the test split, `n_repeats` times (an epoch of pose fitting has 10; SPEC 14)."""
    return [(TEST, i) for i in subject.frames(TEST)] * n_repeats


def _read_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    return read_numbers(path, shape).numpy()


def _indices(folder: Path) -> set[int]:
    """Frame indices of a folder's files `<i>.<suffix>`."""
    if not folder.is_dir():
        return set()
    return {int(path.stem) for path in folder.iterdir() if FRAME_INDEX.fullmatch(path.stem)}


def _read_frame_list(path: Path) -> list[int]:
    try:
        with open_file(path) as file:
            lines = file.read().decode("utf-8").split()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; write one integer a line") from error
    wrong = [line for line in lines if not FRAME_INDEX.fullmatch(line)]
    if wrong:
        raise UserError(f"{path}: {wrong[0][:40]!r} is not a frame index; write one integer a line")
    if not lines:
        raise UserError(f"{path} lists no frames; write one integer a line")
    indices = sorted(map(int, lines))
    if len(set(indices)) < len(indices):
        raise UserError(f"{path} lists a frame twice; list each once")
    return indices
