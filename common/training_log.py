"""What is written while training: TensorBoard scalars every step and a few images every epoch."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from common.errors import UserError
from common.renders import over, render_view
from common.trainer import Losses, PersonModel
from data.dataset import Frame


class TrainingLog:
    """A TensorBoard event file in `folder`; a context manager."""

    def __init__(self, folder: Path, model: PersonModel, preview: list[Frame]) -> None:
        """preview: the frames that `images` renders."""
        from torch.utils.tensorboard import SummaryWriter  # late: importing it is slow

        self.model = model
        self.preview = preview
        try:
            self.writer = SummaryWriter(str(folder))
        except OSError as error:
            raise UserError(
                f"cannot write {folder}: {error.strerror or error}; choose another --paths.output"
            ) from error

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()

    def scalars(self, iteration: int, terms: Losses) -> None:
        """Every loss term and their sum."""
        for name, value in terms.items():
            self.writer.add_scalar(f"loss/{name}", float(value), iteration)
        self.writer.add_scalar("loss/total", sum(float(value) for value in terms.values()), iteration)

    @torch.no_grad()
    def images(self, iteration: int) -> None:
        """Each preview frame: target, base and refined avatar on white, refined normals, side by side."""
        avatar = self.model.persona
        for frame in self.preview:
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
            self.writer.add_image(name, torch.cat(panels, dim=2).clamp(0, 1).cpu(), iteration)
