"""Importing the library is inert: nothing on the disk, no CUDA, no torchvision, and quick."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_CPU_S = 3.0
MAX_RATIO = 2.0  # to PyTorch's own import, on machines where that alone takes most of the time
N_TRIES = 5  # processes, of which one must be quick: other work on the machine can only slow them down
PROGRAM = """
import importlib, json, pkgutil, sys, time
import torch
torch_cpu_s = time.process_time()
import common
names = [m.name for m in pkgutil.walk_packages(common.__path__, "common.")]
unavailable = []
for name in names:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        unavailable.append(name)
cpu_s = time.process_time()
print(json.dumps({
    "names": names, "unavailable": unavailable, "cpu_s": cpu_s,
    "torch_cpu_s": torch_cpu_s, "is_cuda_initialised": torch.cuda.is_initialized(),
    "modules": sorted(sys.modules), "where": common.__path__[0],
}))
"""


def tree(folder: Path) -> list[tuple[str, int, int]]:
    """Every file and folder with its size and time."""
    entries = [(path, path.stat()) for path in sorted(folder.rglob("*"))]
    return [(str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns) for path, stat in entries]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a fresh process finds after importing every module of a bare copy of the library."""
    box = tmp_path_factory.mktemp("imports")
    for package in ("common", "main", "data"):
        for source in (ROOT / package).rglob("*.py"):
            target = box / "code" / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    home = box / "home"
    for folder in ("cache", "tmp"):
        (home / folder).mkdir(parents=True)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "TORCH"))},
        "PYTHONDONTWRITEBYTECODE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "TMPDIR": str(home / "tmp"),
        "OMP_NUM_THREADS": "1",
    }
    before = tree(box)
    found: dict = {}
    for _ in range(N_TRIES):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], cwd=box / "code", env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        if is_quick(found):
            break
    assert Path(found["where"]) == box / "code" / "common"
    return {**found, "said": done.stderr, "is_disk_untouched": tree(box) == before}


def is_quick(found: dict) -> bool:
    """Whether all imports took under three seconds, or little more than PyTorch's own."""
    return found["cpu_s"] < max(MAX_CPU_S, MAX_RATIO * found["torch_cpu_s"])


def test_every_module_can_be_imported_silently(imported):
    assert len(imported["names"]) > 40
    assert imported["said"] == ""
    needs_triton = ("common.gpu.", "common.engine.", "common.rasterizer.triton")  # not in PyTorch for CPUs
    assert all(name.startswith(needs_triton) for name in imported["unavailable"])


def test_imports_make_no_files_or_folders(imported):
    assert imported["is_disk_untouched"]


def test_imports_do_not_start_cuda(imported):
    assert not imported["is_cuda_initialised"]


@pytest.mark.parametrize("module", ["torchvision", "torch._dynamo", "lpips", "chumpy", "anny", "tensorboard"])
def test_imports_do_without_heavy_or_foreign_packages(imported, module):
    assert module not in imported["modules"]


def test_imports_take_less_than_three_seconds(imported):
    assert is_quick(imported), (imported["cpu_s"], imported["torch_cpu_s"])


START_PROGRAM = """
import sys
import torch
from common.optimizer import PersonAdam
from common.pose import SmplxParams, SmplxPose, rotation_from_6d, rotation_to_6d
six = rotation_to_6d(SmplxPose.from_params(SmplxParams.zeros()).rotation).requires_grad_()
optimizer = PersonAdam([{"name": "pose", "params": [six], "lr": 0.1}], lr=0.0)
optimizer.zero_grad(set_to_none=True)
rotation_from_6d(six)[:, 0, 1].sum().backward()
optimizer.step()
print(*sorted({"roma", "torch._dynamo"} & set(sys.modules)))
"""


def test_a_step_does_without_the_compiler_whose_import_takes_seconds():
    done = subprocess.run(
        [sys.executable, "-c", START_PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_training_imports_no_scipy_whose_import_is_slow():
    program = "import sys, main.train; print(*(name for name in sys.modules if name.startswith('scipy')))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
