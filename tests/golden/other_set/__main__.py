"""Write a golden directory of the same files and names, but another mesh, other sizes, frames and draws.

    python -m tests.golden.other_set DIR [--seed 1]
    GOLDEN_DIR=DIR python -m pytest tests/golden

Inputs are drawn at random or from the repository's selection: its body with some faces split, vertices and faces in
another order and another shape; its poses and cameras, moved. Results are this project's own, in float64. So this
shows that the tests depend on no size, count or order of the published arrays, and that their tolerances hold for other
draws; it does not show that the results are right: that only the published arrays do.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from tests.golden import scene
from tests.golden.other_set import avatar, body, functions, subject, training
from tests.golden.other_set.folder import OtherSet

SELECTION = Path(__file__).parents[1] / "arrays"


def main() -> None:
    """Make every file, in an order in which each needs only earlier ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("directory", type=Path, help="must not exist yet")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if args.directory.exists():
        sys.exit(f"{args.directory} is there already")
    args.directory.mkdir(parents=True)
    make(OtherSet(SELECTION, args.directory, args.seed))
    print(f"{args.directory}: done")


def make(other: OtherSet) -> None:
    """All files."""
    torch.manual_seed(int(other.rng.integers(2**31)))
    body.make_body(other)
    coarse = avatar.body_of(other, 0)
    subject.make_subject(other, coarse)
    subject.make_motion(other)
    subject.make_evaluated(other)
    subject.copy_unchanged(other)
    functions.make_subdivision(other, coarse)
    functions.make_mesh_operators(other)
    functions.make_functions(other)
    functions.make_cuda_rasterizer(other)
    functions.make_stress(other)
    fine = scene.load_body(other.read, other.locate)
    avatar.make_masks(other, fine)
    avatar.make_field(other)
    exact = scene.load_body(other.read, other.locate).double()
    avatar.make_body_model(other, exact)
    avatar.make_textures(other, exact)
    avatar.make_state(other)
    field = scene.load_field(other.read)

    def loaded():
        return scene.in_dtype(
            scene.load_avatar(fine, field, other.read("05_persona_state.npz")), torch.float64
        )

    avatar.make_avatar(other, loaded())
    avatar.make_renders(other, loaded())
    functions.make_rasterizer_of_avatar(other)
    training.make_losses(other, fine, field)
    of_param_dict = training.make_param_dict(other)
    training.make_dataset(other)
    model = training.make_checkpoint(other, loaded())
    training.make_schedule(other, model, of_param_dict)
    training.make_motion_renders(other, fine, field)
    training.make_fit_step(other, fine, field)


if __name__ == "__main__":
    main()
