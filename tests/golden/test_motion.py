"""The published motion folder loads (golden 10)."""

from __future__ import annotations

import json

import torch
from PIL import Image

from common.io.parameters import SMPLX_SHAPES
from common.motion import load_motion


def test_motion_folder_loads_in_numeric_order_at_its_images_size(golden_path):
    folder = golden_path("10_motion")
    motion = load_motion(folder, with_background=True)
    indices = sorted(int(path.stem) for path in (folder / "images").iterdir())
    assert [frame.index for frame in motion.frames] == indices
    with Image.open(folder / "images" / f"{indices[0]}.png") as image:
        assert (motion.width, motion.height) == image.size
    for frame in motion.frames:
        content = json.loads((folder / "smplx/params" / f"{frame.index}.json").read_text())
        for name, shape in SMPLX_SHAPES.items():
            assert torch.equal(getattr(frame.params, name), torch.tensor(content[name]).reshape(shape))
        camera = json.loads((folder / "cam_params" / f"{frame.index}.json").read_text())
        assert torch.equal(frame.camera.princpt, torch.tensor(camera["princpt"]))
