"""A benchmark in a terminal, as Markdown and as charts."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effdet_deploy._version import __version__
from effdet_deploy.reports.columns import Column, Table
from effdet_deploy.reports.text import show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

    from effdet_deploy.benchmark.artifacts import Benchmark, Result
    from effdet_deploy.benchmark.machine import Load, Machine
    from effdet_deploy.reports.columns import Part


def _interval(result: Result) -> str:
    low, high = result.end_to_end.interval
    runs = len(result.end_to_end.seconds)
    return f"{1e3 * low:.2f}-{1e3 * high:.2f}" if low > 0 else f"{runs} runs: none"


def _ratio(result: Result) -> str:
    return "" if result.ratio is None else f"{result.ratio}, {result.ratio.verdict}"


NAMING: tuple[Column[Result], ...] = (
    Column("model", lambda each: each.name, "words"),
    Column("engine", lambda each: f"{each.backend} {each.device} {each.precision}", "words"),
)
MEASURED: tuple[Column[Result], ...] = (
    Column("batch", lambda each: str(each.batch), "words"),
    Column("threads", lambda each: str(each.threads or "default"), "words"),
    Column("median ms", lambda each: f"{1e3 * each.end_to_end.median:.2f}", "words"),
    Column("95% interval", _interval, "words"),
    Column("p90 ms", lambda each: f"{1e3 * each.end_to_end.percentile(90):.2f}", "words"),
    Column("p99 ms", lambda each: f"{1e3 * each.end_to_end.percentile(99):.2f}", "words"),
    Column("spread", lambda each: f"{each.end_to_end.variation:.1%}", "words"),
    Column("images/s", lambda each: f"{each.throughput:.1f}", "words"),
    Column("against the first", _ratio, "words"),
)


def render_benchmark(benchmark: Benchmark) -> RenderableType:
    """Return the benchmark for a terminal: a table an artifact, then what they have no room for."""
    groups: dict[str, list[Result]] = {}
    for each in benchmark.results:
        groups.setdefault(": ".join(column.cell(each) for column in NAMING), []).append(each)
    parts: list[Part | str] = []
    for title, results in groups.items():
        parts += [title, Table(MEASURED, [results])]
    return show([*parts, *detail_lines(benchmark)])


def command_of(arguments: Sequence[str]) -> str:
    """Return a command's arguments as one line; of a path outside the folder, the name only."""
    shown = (Path(each).name if Path(each).is_absolute() else each for each in arguments)
    return shlex.join(shown)


def environment(machine: Machine, load: Load) -> dict[str, Any]:
    """Return where and under what load something was measured, for JSON."""
    return {
        "effdet_deploy": __version__,
        "machine": asdict(machine),
        "load": asdict(load) | {"trusted": not load.reasons, "reasons": list(load.reasons)},
    }


def to_dict(benchmark: Benchmark) -> dict[str, Any]:
    """Return the whole benchmark as a JSON document."""
    return environment(benchmark.machine, benchmark.load) | {
        "results": [result.to_dict() for result in benchmark.results]
    }


def detail_lines(benchmark: Benchmark) -> list[str]:
    """Return what the table has no room for, a line each.

    Where the time goes, what share of the machine's ceilings is reached, and what it takes to get
    going.
    """
    lines = [line for result in benchmark.results if (line := _stage_line(result))]
    lines += [line for result in benchmark.results if (line := _reached_line(result))]
    started = {(each.name, each.threads): _footprint_line(each) for each in benchmark.results}
    return lines + list(started.values())


def _stage_line(result: Result) -> str:
    parts = [f"{name} {1e3 * seconds:.2f} ms" for name, seconds in result.stages.items() if seconds]
    parts += [f"{name} {share:.1%}" for name, share in result.shares.items()]
    return f"{result.name}, batch {result.batch}: {', '.join(parts)}" if parts else ""


def _reached_line(result: Result) -> str:
    work, reached = result.work, result.reached
    if work is None or reached is None or not work.macs:
        return ""
    return (
        f"{result.name}, batch {result.batch}: {1e-9 * work.macs:.2f} GMACs are "
        f"{reached.arithmetic:.0%} of this machine's float32 arithmetic at "
        f"{1e3 * result.end_to_end.median:.1f} ms, {1e-6 * work.traffic:.0f} MB of activations "
        f"and weights {reached.bandwidth:.0%} of its bandwidth"
    )


def _footprint_line(result: Result) -> str:
    each = result.footprint
    device = f" and {_megabytes(each.device_memory)} on the device" if each.device_memory else ""
    return (
        f"{result.name}: file {_megabytes(result.file_size)}; first result after "
        f"{each.until_first:.2f} s (imports {each.import_seconds:.2f}, load "
        f"{each.load_seconds:.2f}, first run {each.first_seconds:.2f}); "
        f"{_megabytes(each.peak_memory)} of host memory at the most{device}"
    )


def _megabytes(count: int) -> str:
    return f"{1e-6 * count:.0f} MB" if count >= 1e7 else f"{1e-6 * count:.1f} MB"


def load_lines(load: Load) -> list[str]:
    """Return what is to be said about the machine's other work, a line each."""
    if load.reasons:
        return [f"DO NOT TRUST THESE NUMBERS: {' and '.join(load.reasons)}."]
    if not load.observed:
        return ["This system does not tell what else was running."]
    others, stolen = f"{load.other_share:.1%}", f"{load.steal_share:.1%}"
    return [f"Other programs took {others} of the processors' time, the hypervisor {stolen}."]


def markdown_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; a ``|`` in a cell is escaped."""
    lines = [columns, ["---"] * len(columns), *cells]
    return "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines
    )


def to_markdown(benchmark: Benchmark, pictures: Mapping[str, str] | None = None) -> str:
    """Return the benchmark as a Markdown section.

    Args:
        benchmark: what was measured.
        pictures: the path of each of :func:`to_charts`, by its title.
    """
    columns = (*NAMING, *MEASURED)
    cells = [[column.cell(each) for column in columns] for each in benchmark.results]
    shown = [f"![{title}]({path})\n" for title, path in (pictures or {}).items()]
    return "\n".join(
        (
            f"Measured on: {benchmark.machine}.",
            *load_lines(benchmark.load),
            "",
            markdown_table([each.heading for each in columns], cells),
            *shown,
            *(f"- {line}" for line in detail_lines(benchmark)),
            "",
        )
    )


def to_charts(benchmark: Benchmark) -> dict[str, str]:
    """Return SVG files by title: latency side by side, throughput against batch and threads.

    A chart of one value is none. Drawing needs matplotlib, which the extra ``[report]`` brings.
    """
    from effdet_deploy.reports.charts import Mark, Series, bar_chart, line_chart

    charts = {}
    if len(benchmark.results) > 1:
        bars = [
            Mark(_label(each), 1e3 * each.end_to_end.median, is_ours=True)
            for each in benchmark.results
        ]
        charts["latency"] = bar_chart("Latency, end to end", "milliseconds (median)", bars)
    for axis in ("batch", "threads"):
        lines: dict[str, dict[float, float]] = {}
        for each in benchmark.results:
            place = getattr(each, axis)
            fixed = each.threads if axis == "batch" else each.batch
            name = f"{each.name}, {'threads' if axis == 'batch' else 'batch'} {fixed or 'default'}"
            if place is not None:
                lines.setdefault(name, {})[place] = each.throughput
        series = [Series(name, tuple(points.items())) for name, points in lines.items()]
        if any(len(line.points) > 1 for line in series):
            title = f"throughput against {axis}"
            charts[title] = line_chart(title.capitalize(), axis, "images a second", series)
    return charts


def _label(result: Result) -> str:
    threads = f", {result.threads} threads" if result.threads else ""
    return f"{result.name}, batch {result.batch}{threads}"
