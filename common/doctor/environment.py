"""Whether this machine can run the project: Python, packages, PyTorch, GPU, compilers, video, disk."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from common.doctor.findings import Findings

MIN_PYTHON = (3, 11)
MIN_CAPABILITY = (7, 5)  # of the Triton kernels
WORK_SPACE_GB, LOW_SPACE_GB = 5.0, 0.5  # a full subject with its results; one snapshot and its temporary copy
_PIN = re.compile(r"^([A-Za-z0-9_.\-]+)==([^\s;#]+)", re.MULTILINE)
_INSTALL = "pip install -r requirements.txt"


def check_environment(findings: Findings, root: Path, output: Path) -> None:
    """Everything about the machine; `root` is the repository, `output` where results go."""
    findings.topic = "environment"
    check_python(findings)
    check_packages(findings, root / "requirements.txt")
    check_torch(findings)
    check_numba(findings)
    check_video(findings)
    check_disk(findings, output)


def check_python(findings: Findings) -> None:
    """The interpreter's version."""
    found = platform.python_version()
    if sys.version_info < MIN_PYTHON:
        wanted = ".".join(map(str, MIN_PYTHON))
        findings.error("Python", f"{found} is too old", f"make the environment with Python {wanted} or newer")
    else:
        findings.ok("Python", f"{found} on {platform.system()} {platform.machine()}")


def check_packages(findings: Findings, requirements: Path) -> None:
    """Installed versions against the pinned ones."""
    if not requirements.is_file():
        findings.error("packages", f"missing file: {requirements}", "get it from the repository")
        return
    wrong = 0
    pins = _PIN.findall(requirements.read_text())
    for name, wanted in pins:
        try:
            found = version(name).partition("+")[0]  # "2.13.0+cpu" is a build of 2.13.0
        except PackageNotFoundError:
            findings.error("packages", f"{name} is not installed", _INSTALL)
            wrong += 1
            continue
        if found != wanted:
            findings.warn("packages", f"{name} {found} is installed, tested is {wanted}", _INSTALL)
            wrong += 1
    if not wrong:
        findings.ok("packages", f"all {len(pins)} of requirements.txt are there in the tested versions")


def check_torch(findings: Findings) -> None:
    """PyTorch's build, the driver, every GPU, and whether the GPU rasterizer works on it."""
    cuda = torch.version.cuda
    findings.ok(
        "PyTorch", f"{torch.__version__}, built {f'for CUDA {cuda}' if cuda else 'without CUDA'}, "
        f"{torch.get_num_threads()} threads"
    )  # fmt: skip
    driver = nvidia_driver()
    if not torch.cuda.is_available():
        if driver is None:
            findings.ok("GPU", "none: everything runs on the CPU; subjects larger than the demo take long")
        elif cuda is None:
            findings.warn(
                "GPU", f"there is one (driver {driver}), but this PyTorch is built without CUDA",
                "install PyTorch's CUDA build: pip install -r requirements.txt in a new environment",
            )  # fmt: skip
        else:
            findings.warn(
                "GPU", f"there is one (driver {driver}), but PyTorch for CUDA {cuda} cannot use it",
                "update the NVIDIA driver, or check CUDA_VISIBLE_DEVICES",
            )  # fmt: skip
        return
    for index in range(torch.cuda.device_count()):
        _check_gpu(findings, index, driver or "unknown")


def _check_gpu(findings: Findings, index: int, driver: str) -> None:
    properties = torch.cuda.get_device_properties(index)
    capability = (properties.major, properties.minor)
    text = (
        f"{properties.name}, compute capability {capability[0]}.{capability[1]}, "
        f"{properties.total_memory / 2**30:.0f} GiB, driver {driver}"
    )
    if capability < MIN_CAPABILITY:
        findings.warn(
            "GPU", f"{text}: too old for the fast rasterizer", "use a GPU of 2018 (Turing) or newer"
        )
        return
    findings.ok("GPU", text)
    from common.doctor.rasterizer import triton_failure

    failure = triton_failure(torch.device("cuda", index))
    if failure:
        findings.warn(
            "Triton", f"the fast rasterizer does not work here ({failure}); a much slower one is used",
            "install a C compiler (Triton needs one to start kernels) and PyTorch's own Triton: " + _INSTALL,
        )  # fmt: skip
    else:
        findings.ok("Triton", "the fast rasterizer works and agrees with the reference, gradients too")


def nvidia_driver() -> str | None:
    """Version of the NVIDIA driver; None where there is no NVIDIA GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else None


def check_numba(findings: Findings) -> None:
    """Whether numba compiles the CPU rasterizer, and its answer is the reference's."""
    from common.doctor.rasterizer import numba_failure

    failure = numba_failure()
    if failure:
        findings.error("numba", f"the CPU rasterizer does not work ({failure})", _INSTALL)
    else:
        findings.ok("numba", "the CPU rasterizer works and agrees with the reference, gradients too")


def check_video(findings: Findings) -> None:
    """FFmpeg's library in PyAV, with the x264 encoder."""
    try:
        import av
    except ImportError as error:
        findings.error("video", f"PyAV cannot be imported ({error})", _INSTALL)
        return
    if "libx264" not in av.codecs_available:
        findings.error(
            "video", f"PyAV {av.__version__} has no x264 encoder",
            "install PyAV's own wheel, which has it: pip install --force-reinstall --only-binary av av",
        )  # fmt: skip
    else:
        findings.ok("video", f"PyAV {av.__version__} with x264")


def check_disk(findings: Findings, output: Path) -> None:
    """Whether results can be written, and the space for them."""
    folder = output
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        findings.error(
            "disk", f"{folder} cannot be written", "change its permissions, or give --paths.output"
        )
        return
    free = shutil.disk_usage(folder).free / 1e9
    if free < LOW_SPACE_GB:
        findings.error("disk", f"{free:.2f} GB free in {folder}", "free space, or give --paths.output")
    elif free < WORK_SPACE_GB:
        findings.warn(
            "disk", f"{free:.1f} GB free in {folder}, a full subject with its results takes about 5",
            "free space, or give --paths.output",
        )  # fmt: skip
    else:
        findings.ok("disk", f"{free:.0f} GB free in {folder}")
