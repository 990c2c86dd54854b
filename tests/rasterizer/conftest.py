"""Which rasterizers the tests of this folder run over, and where."""

from __future__ import annotations

import os

import pytest
import torch

from tests.rasterizer.scenes import Backend

OF_THE_INTERPRETER = {"n": 256, "height": 4, "width": 8}  # some ten are in sight


@pytest.fixture
def triton_device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where Triton's kernels run: a GPU, or the CPU for its interpreter (run by test_triton_interpreted.py)."""
    pytest.importorskip("triton", reason="Triton is not installed")
    from common.rasterizer import triton_images, triton_loader, triton_tile_lists

    # A failure of the kernels must not be hidden by the torch rasterizer taking over.
    monkeypatch.setattr(triton_loader, "_works", lambda splats: True)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("no CUDA device; test_triton_interpreted.py runs these tests")
    # It runs one program after the other, one for everything that there is room for, and multiplies one by one.
    monkeypatch.setattr(triton_tile_lists, "ROUNDING", 16)
    monkeypatch.setattr(triton_images, "ATTENUATED", 16)
    return torch.device("cpu")


@pytest.fixture(params=["torch", "numba", "triton"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every rasterizer of Gaussians, with the device and the type of its numbers."""
    if request.param != "triton":
        return Backend(request.param, torch.device("cpu"), torch.float64, tolerance=1e-9)
    device = request.getfixturevalue("triton_device")
    size = OF_THE_INTERPRETER if device.type == "cpu" else {}
    return Backend("triton", device, torch.float32, tolerance=1e-4, size=size)
