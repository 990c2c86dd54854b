"""Measure the rasterizer on a full-size body: time per call, forward and backward, eager and as a CUDA graph."""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import tyro
from torch import Tensor

from common.body_model.body import BodyModel
from common.body_model.files import load_body_data
from common.camera import Camera
from common.errors import run_command
from common.gaussians import Gaussians
from common.pose import SmplxParams
from common.rasterizer import rasterize
from common.texture import initial_log_scale
from main.config import DEMO_BODY, ROOT
from main.setup import choose_device

FOCAL_PX = 1500.0
DISTANCE_M = 2.9  # fills the height of a 1024 pixel image


@dataclass(frozen=True)
class BenchmarkArgs:
    """Options of the benchmark."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    output: Path = ROOT / "output" / "benchmark.json"
    """File of the results."""
    channels: tuple[int, ...] = (3, 8, 16, 32)
    """Numbers of channels."""
    height: int = 1024
    """Pixels."""
    width: int = 576
    """Pixels."""
    subdivisions: int = 2
    """Of the demo body; 2 gives about 220,000 Gaussians."""
    repeats: int | None = None
    """Timed calls each, of which the median is shown (default: 100 on a GPU, 5 on a CPU)."""
    backend: str = "auto"
    """Rasterizer backend."""


@dataclass(frozen=True)
class Measurement:
    """Median time of a call in milliseconds; None: cannot be done here."""

    what: str
    n_channels: int
    forward: float | None
    forward_graph: float | None
    both: float | None  # forward and backward
    both_graph: float | None


def posed_gaussians(device: torch.device, subdivisions: int) -> Gaussians:
    """The demo body with bent arms and legs, in camera space, one isotropic opaque Gaussian per vertex."""
    body = BodyModel(load_body_data(DEMO_BODY, "male"), subdivisions)
    generator = torch.Generator().manual_seed(0)
    zeros = SmplxParams.zeros()
    params = replace(
        zeros,
        root_pose=torch.tensor([3.0, 0.2, 0.1]),
        body_pose=0.25 * torch.randn(zeros.body_pose.shape, generator=generator),
    )
    vertices = body.subdivider.interpolate(body.vertices(params, None).vertices)
    centre = (vertices.amin(0) + vertices.amax(0)) / 2
    mean = vertices - centre + torch.tensor([0.0, 0.0, DISTANCE_M])
    scale = initial_log_scale(body.subdivider.interpolate(body.neutral_vertices(None, jaw_open=True))).exp()
    return Gaussians(
        mean.to(device), scale.to(device), torch.rand(mean.shape, generator=generator).to(device)
    )


def median_ms(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median time of a call, after warming up."""
    for _ in range(min(repeats, 10)):
        call()
    if device.type != "cuda":
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times)
    events = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)
    ]
    torch.cuda.synchronize(device)
    for begin, end in events:
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize(device)
    return statistics.median(begin.elapsed_time(end) for begin, end in events)


def captured(call: Callable[[], object], device: torch.device) -> Callable[[], None] | None:
    """The call as a CUDA graph; None if it cannot be captured."""
    if device.type != "cuda":
        return None
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            call()
    except RuntimeError:
        torch.cuda.synchronize(device)
        return None
    return graph.replay


def measure(
    what: str, draw: Callable[[], Tensor], leaves: list[Tensor], device: torch.device, repeats: int
) -> Measurement:
    """Times of `draw` alone and with the gradients of its weighted sum to `leaves`."""
    weight = torch.randn_like(draw())

    def forward() -> Tensor:
        with torch.no_grad():
            return draw()

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(draw(), leaves, weight)

    times: list[float | None] = []
    for call in (forward, both):
        replay = captured(call, device)
        times.append(median_ms(call, device, repeats))
        times.append(None if replay is None else median_ms(replay, device, repeats))
    return Measurement(what, weight.shape[0], *times)


def ours(
    gaussians: Gaussians, camera: Camera, n_channels: int, args: BenchmarkArgs, repeats: int
) -> Measurement:
    """This repository's rasterizer."""
    device = gaussians.mean.device
    generator = torch.Generator().manual_seed(n_channels)
    channels = torch.rand(len(gaussians.mean), n_channels, generator=generator).to(device)
    leaves = [tensor.clone().requires_grad_() for tensor in (gaussians.mean, gaussians.scale, channels)]

    def draw() -> Tensor:
        moved = replace(gaussians, mean=leaves[0], scale=leaves[1])
        return rasterize(moved, camera, leaves[2], backend=args.backend)

    return measure("rasterize", draw, leaves, device, repeats)


def gsplat(gaussians: Gaussians, camera: Camera, n_channels: int, repeats: int) -> Measurement | None:
    """The gsplat package on the same Gaussians, if it is installed."""
    try:
        from gsplat import rasterization
    except ImportError:
        return None
    device, n = gaussians.mean.device, len(gaussians.mean)
    channels = torch.rand(n, n_channels, device=device)
    leaves = [tensor.clone().requires_grad_() for tensor in (gaussians.mean, gaussians.scale, channels)]
    quaternion = torch.tensor([1.0, 0.0, 0.0, 0.0], device=device).expand(n, 4).contiguous()
    opacity = torch.ones(n, device=device)
    intrinsics = torch.eye(3, device=device)
    intrinsics[0, 0], intrinsics[1, 1] = camera.focal
    intrinsics[:2, 2] = camera.princpt
    view = torch.eye(4, device=device)[None]

    def draw() -> Tensor:
        image, _, _ = rasterization(
            leaves[0],
            quaternion,
            leaves[1].expand(-1, 3),
            opacity,
            leaves[2],
            view,
            intrinsics[None],
            camera.width,
            camera.height,
            eps2d=0.1,
            packed=False,
            rasterize_mode="antialiased",
        )
        return image[0].permute(2, 0, 1)

    return measure("gsplat", draw, leaves, device, repeats)


def machine(device: torch.device) -> dict[str, str]:
    """What the figures were measured on."""
    facts = {
        "processor": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def table(measurements: list[Measurement]) -> str:
    """The results in lines."""
    heads = ("forward", "(graph)", "both", "(graph)")
    lines = [f"{'milliseconds':<12} {'channels':>8}" + "".join(f"{head:>10}" for head in heads)]
    for m in measurements:
        times = (m.forward, m.forward_graph, m.both, m.both_graph)
        cells = "".join(f"{'-' if t is None else format(t, '.3f'):>10}" for t in times)
        lines.append(f"{m.what:<12} {m.n_channels:>8}{cells}")
    return "\n".join(lines)


def main(args: BenchmarkArgs) -> None:
    """Measure, print a table and write the results."""
    device = choose_device(args.device)
    repeats = args.repeats or (100 if device.type == "cuda" else 5)
    gaussians = posed_gaussians(device, args.subdivisions)
    princpt = (args.width / 2, args.height / 2)
    focal = FOCAL_PX * args.height / 1024
    camera = Camera.identity((focal, focal), princpt, args.height, args.width).to(device)
    measurements = []
    for n_channels in args.channels:
        measurements.append(ours(gaussians, camera, n_channels, args, repeats))
        beside = gsplat(gaussians, camera, n_channels, repeats) if device.type == "cuda" else None
        if beside is not None:
            measurements.append(beside)
    scene = {"gaussians": len(gaussians.mean), "height": args.height, "width": args.width}
    facts = {**machine(device), **{key: str(value) for key, value in scene.items()}}
    print("\n".join(f"{key}: {value}" for key, value in facts.items()))
    print(table(measurements))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine(device), "scene": scene, "rasterizer": [asdict(m) for m in measurements]}
    args.output.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {args.output}")


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(BenchmarkArgs, description=__doc__, use_underscores=True)))
