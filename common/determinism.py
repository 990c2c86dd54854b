"""The very same bits in every run on one machine."""

from __future__ import annotations

import os

import torch


def make_deterministic(device: torch.device) -> None:
    """Let torch use, or refuse to run, only operations whose results repeat bit by bit."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
