"""The results as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from common.benchmark.animation import AnimationTimes
from common.benchmark.rasterizer import OURS, RasterizerTimes
from common.benchmark.start import StartTimes
from common.benchmark.steps_alone import StepsAlone
from common.benchmark.training import StepTimes


def _cell(value: float | None) -> str:
    return "-" if value is None else format(value, ".3f")


def _lines(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in (heads, *rows)
    ]


def rasterizer_lines(rows: Sequence[RasterizerTimes]) -> list[str]:
    """Milliseconds of the rasterizers, and how much slower than this repository's graph the others are."""
    best = {r.n_channels: r.both_graph or r.both for r in rows if r.what == OURS}
    cells = []
    for r in rows:
        ours, theirs = best.get(r.n_channels), r.both_graph or r.both
        ratio = "-" if r.what == OURS or not ours or not theirs else f"{theirs / ours:.1f} x"
        times = [_cell(t) for t in (r.forward, r.forward_graph, r.both, r.both_graph)]
        difference = "-" if r.difference is None else f"{r.difference:.1e}"
        cells.append([r.what, str(r.n_channels), *times, ratio, difference, r.note])
    heads = (
        "rasterizer, ms",
        "channels",
        "forward",
        "(graph)",
        "both",
        "(graph)",
        "time to ours",
        "difference",
        "",
    )
    return _lines(heads, cells)


def step_lines(rows: Sequence[StepTimes]) -> list[str]:
    """Milliseconds of training steps and their stages."""
    heads = (
        "step, ms",
        "path",
        "whole",
        "a second",
        "avatar",
        "renders",
        "losses",
        "backward",
        "optimiser+",
    )
    cells = [
        [
            r.kind,
            r.path,
            _cell(r.step),
            f"{1e3 / r.step:.1f}",
            *(_cell(t) for t in (r.avatar, r.renders, r.losses, r.backward, r.optimizer)),
        ]
        for r in rows
    ]
    return _lines(heads, cells)


def alone_lines(rows: Sequence[StepsAlone]) -> list[str]:
    """Milliseconds of whole steps and the peak of memory, each way in a process of its own."""
    heads = ("step alone, ms", "captured", "generated", "tensors MiB", "reserved MiB", "host MiB")

    def mib(value: float | None) -> str:
        return "-" if value is None else f"{value:.0f}"

    cells = [
        [r.way, _cell(r.captured), _cell(r.generated), *map(mib, (r.tensors_mib, r.reserved_mib, r.host_mib))]
        for r in rows
    ]
    return _lines(heads, cells)


def animation_lines(times: AnimationTimes) -> list[str]:
    """Frames a second."""
    rows = [
        [name, _cell(ms), f"{1e3 / ms:.1f}", f"{times.plain / ms:.1f}"]
        for name, ms in (
            ("plain path", times.plain),
            ("engine", times.engine),
            ("engine, encoding", times.encoded),
        )
    ]
    agreement = times.agreement
    heads = ("picture values that differ from the plain path's", "levels at most", "by over 1, in a million")
    differences = [
        [name, str(difference.levels), f"{1e6 * difference.share_over_one:.1f}"]
        for name, difference in (
            ("engine", agreement.engine),
            ("engine, each Gaussian at the plain path's depth", agreement.same_depths),
            ("plain path, positions moved by one unit of float32", agreement.one_ulp),
        )
    ]
    return [
        *_lines(("animation", "ms a frame", "frames a second", "times the plain path"), rows),
        f"{times.n_gaussians} Gaussians, {times.width} x {times.height} pixels; engine ready after "
        f"{times.preparation_s:.2f} s",
        "",
        *_lines(heads, differences),
    ]


def start_lines(times: StartTimes) -> list[str]:
    """Seconds until the first training step."""
    heads = ("start, s", *times.cold)
    rows = [["first run", *map(_cell, times.cold.values())]]
    rows += [["again", *map(_cell, again.values())] for again in times.warm]
    rows += [["with LPIPS", *map(_cell, one.values())] for one in times.with_lpips]
    rows += [[f"{times.n_frames} generated frames", *map(_cell, one.values())] for one in times.many_frames]
    alone = ", ".join(f"{stage} {seconds:.3f} s" for stage, seconds in times.torch_alone.items())
    return [*_lines(heads, rows), f"a process with PyTorch alone: {alone}"]


def as_table(results: dict[str, Any]) -> str:
    """All results that there are."""
    blocks = [[f"{key}: {value}" for key, value in results["machine"].items()]]
    for name, lines in (
        ("rasterizer", rasterizer_lines),
        ("training", step_lines),
        ("memory", alone_lines),
        ("animation", animation_lines),
        ("start", start_lines),
    ):
        if name in results:
            blocks.append(lines(results[name]))  # type: ignore[operator]
    if "field" in results:
        blocks.append([f"skinning field: {results['field']:.2f} s"])
    blocks.append([f"most host memory of this process: {results['host_peak_mib']:.0f} MiB"])
    blocks.append(results["notes"])
    return "\n\n".join("\n".join(block) for block in blocks)


def as_json(results: dict[str, Any]) -> dict[str, Any]:
    """The results as plain values."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(item) for item in value]
        return asdict(value) if hasattr(value, "__dataclass_fields__") else value

    return {key: plain(value) for key, value in results.items()}
