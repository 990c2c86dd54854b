"""What is written while training: TensorBoard scalars every step and a few images every epoch."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from common.errors import UserError
from common.renders import over, render_view
from common.trainer import Losses, PersonModel
from data.dataset import Frame

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

WRITE_EVERY = 50  # steps whose terms wait on a GPU before they are fetched together


class TrainingLog:
    """A TensorBoard event file in `folder`; a context manager.

    The file grows while training, so it is not written under another name first: every record in it has its
    own checksum, and readers leave out a last record that is cut off.
    """

    def __init__(self, folder: Path, model: PersonModel, preview: Callable[[], list[Frame]]) -> None:
        """preview: gives the frames that `images` renders, as often as asked."""
        self.folder = folder
        self.model = model
        self.preview = preview
        self._waiting: list[tuple[int, list[str], Tensor]] = []
        self._writer: SummaryWriter | None = None
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def writer(self) -> SummaryWriter:
        """TensorBoard's; the event file is there from the first use on."""
        if self._writer is None:  # importing it is slow: not before the first step
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder))
        return self._writer

    def __enter__(self) -> TrainingLog:
        self._earlier_hook, threading.excepthook = threading.excepthook, self._thread_failed
        return self

    def _thread_failed(self, failure: threading.ExceptHookArgs) -> None:
        """An error of TensorBoard's own thread comes up at the next write as well: no traceback for it."""
        if isinstance(failure.exc_value, OSError):
            logger.debug("TensorBoard's writer: %s", failure.exc_value)
        else:
            self._earlier_hook(failure)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._writing():
                self._write_scalars()
                if self._writer is not None:
                    self._writer.close()
        except UserError:
            if error is None:  # else that error is the one to be told
                raise
        finally:
            threading.excepthook = self._earlier_hook

    def scalars(self, iteration: int, terms: Losses) -> None:
        """Every loss term and their sum."""
        values = torch.stack([value.detach() for value in terms.values()])
        self._waiting.append((iteration, list(terms), values))
        if not values.is_cuda or len(self._waiting) >= WRITE_EVERY:
            with self._writing():
                self._write_scalars()

    def _write_scalars(self) -> None:
        waiting, self._waiting = self._waiting, []
        fetched = iter(torch.cat([values for *_, values in waiting]).tolist() if waiting else [])
        for iteration, names, _ in waiting:
            terms = {name: next(fetched) for name in names}
            for name, value in {**terms, "total": sum(terms.values())}.items():
                self.writer.add_scalar(f"loss/{name}", value, iteration)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(
                f"cannot write {self.folder}: {reason}; free space or choose another --paths.output"
            ) from error

    @torch.no_grad()
    def images(self, iteration: int) -> None:
        """Each preview frame: target, base and refined avatar on white, refined normals, side by side."""
        avatar = self.model.persona
        for frame in self.preview():
            posed = avatar(self.model.smplx_param_dict.pose(frame.split, frame.index), frame.camera)
            base = render_view(posed.base, avatar.body, frame.camera)
            refined = render_view(posed.refined, avatar.body, frame.camera)
            panels: list[Tensor] = [
                frame.image,
                over(base["image"], base["mask"], 1.0),
                over(refined["image"], refined["mask"], 1.0),
                refined["normal"],
            ]
            name = f"{frame.split}_{frame.index}"
            with self._writing():
                self.writer.add_image(name, torch.cat(panels, dim=2).clamp(0, 1).cpu(), iteration)
