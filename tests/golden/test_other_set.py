"""Another golden directory is made, with every file and array of coverage.py and other sizes.

The suite on it is a command of its own: see other_set/__main__.py.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest

from tests.golden.conftest import GOLDEN_DIR
from tests.golden.coverage import CHECKED, INPUTS
from tests.golden.other_set.__main__ import SELECTION, make
from tests.golden.other_set.folder import OtherSet
from tests.golden.test_coverage import places

pytestmark = pytest.mark.skipif(
    os.environ.get("TEST_DEVICE", "cpu") != "cpu" or GOLDEN_DIR != SELECTION,
    reason="made of the selection, on a CPU",
)


@pytest.fixture(scope="module")
def other_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden") / "other"
    folder.mkdir()
    make(OtherSet(SELECTION, folder, seed=1))
    return folder


def test_it_has_what_a_full_directory_has(other_set):
    found = places(other_set)
    for rows in (INPUTS, CHECKED):
        empty = [row for row in rows if not any(fnmatchcase(place, row) for place in found)]
        assert set(empty) <= {"README.md", "selection.json"}
    assert [place for place in found if not any(fnmatchcase(place, row) for row in (*INPUTS, *CHECKED))] == []


@pytest.mark.parametrize(
    "place",
    [
        *("01_subdivision.npz:verts_lr", "01_subdivision.npz:faces_hr", "02_functions.npz:img_out"),
        *("03_masks.npz:expr_vertex_idx", "04_skinning_field.npz:field_c", "05_persona_state.npz:triplane"),
        *("05_persona_state.npz:scale", "06_texture_init.npz:texture", "06_texture_init.npz:vertex_uv"),
        *("07_rasteriser_stress.npz:img", "07_renders_captured.npz:img_black"),
        *("07_renders_captured.npz:patch_face_img", "10_motion_renders.npz:video_frames_bgr_uint8"),
        "12_rasterizer_cuda/public_0.npz:image",
    ],
)
def test_its_sizes_are_others(other_set, place):
    file, name = place.split(":")
    with np.load(SELECTION / file) as published, np.load(other_set / file) as others:
        assert published[name].shape != others[name].shape
