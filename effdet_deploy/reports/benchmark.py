"""A benchmark in a terminal, as Markdown and as charts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effdet_deploy.errors import UsageError
from effdet_deploy.reports.columns import Column, Table
from effdet_deploy.reports.text import show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import RenderableType

    from effdet_deploy.benchmark.benchmarking import Benchmark, Result
    from effdet_deploy.benchmark.machine import Load
    from effdet_deploy.reports.columns import Part


NAMING: tuple[Column[Result], ...] = (
    Column("model", lambda each: each.name, "words"),
    Column("runtime", lambda each: f"{each.backend} {each.device} {each.precision}", "words"),
)
MEASURED: tuple[Column[Result], ...] = (
    Column("batch", lambda each: str(each.batch), "words"),
    Column("threads", lambda each: str(each.threads or "default"), "words"),
    Column("median ms", lambda each: f"{1e3 * each.end_to_end.median:.2f}", "words"),
    Column(
        "95% interval",
        lambda each: (
            "{:.2f}-{:.2f}".format(*(1e3 * end for end in each.end_to_end.interval))
            if each.end_to_end.interval[0] > 0
            else f"{len(each.end_to_end.seconds)} runs: none"
        ),
        "words",
    ),
    Column("p90 ms", lambda each: f"{1e3 * each.end_to_end.percentile(90):.2f}", "words"),
    Column("p99 ms", lambda each: f"{1e3 * each.end_to_end.percentile(99):.2f}", "words"),
    Column("spread", lambda each: f"{each.end_to_end.variation:.1%}", "words"),
    Column("images/s", lambda each: f"{each.throughput:.1f}", "words"),
    Column(
        "against the first",
        lambda each: f"{each.ratio}, {each.ratio.verdict}" if each.ratio else "",
        "words",
    ),
)


def render_benchmark(benchmark: Benchmark) -> RenderableType:
    """Return the benchmark for a terminal: a table per model and runtime, then lines of details."""
    groups: dict[str, list[Result]] = {}
    for each in benchmark.results:
        groups.setdefault(": ".join(column.cell(each) for column in NAMING), []).append(each)
    parts: list[Part | str] = []
    for title, results in groups.items():
        parts += [title, Table(MEASURED, [results])]
    return show([*parts, *detail_lines(benchmark)])


def detail_lines(benchmark: Benchmark) -> list[str]:
    """Return the details that the table has no room for, as lines.

    They say where the time goes, which share of the machine's ceilings (the arithmetic and the
    bandwidth that it can reach) is used, and what a new process needs until its first detection.
    """
    stages, ceilings, started = [], [], {}
    for each in benchmark.results:
        threads = f", {each.threads} threads" if each.threads else ""
        named = f"{each.name}, batch {each.batch}{threads}"
        parts = [f"{name} {1e3 * took:.2f} ms" for name, took in each.stages.items() if took]
        parts += [f"{name} {share:.1%}" for name, share in each.shares.items()]
        if parts:
            stages.append(f"{named}: {', '.join(parts)}")
        if each.work is not None and each.reached is not None and each.work.macs:
            ceilings.append(
                f"{named}: {1e-9 * each.work.macs:.2f} GMACs in "
                f"{1e3 * each.end_to_end.median:.1f} ms use {each.reached.arithmetic:.0%} of this "
                f"machine's float32 arithmetic, and {1e-6 * each.work.traffic:.0f} MB of "
                f"activations and weights use {each.reached.bandwidth:.0%} of its memory bandwidth"
            )
        needs = each.footprint
        memory = f"{_megabytes(needs.peak_memory)} of host memory at most"
        if needs.device_memory:
            memory += f" and {_megabytes(needs.device_memory)} on the device"
        started[each.name, each.threads] = (
            f"{each.name}{threads}: file {_megabytes(each.file_size)}; first result after "
            f"{needs.until_first:.2f} s (imports {needs.import_seconds:.2f}, load "
            f"{needs.load_seconds:.2f}, first run {needs.first_seconds:.2f}); {memory}"
        )
    return [*stages, *ceilings, *started.values()]


def _megabytes(count: int) -> str:
    return f"{1e-6 * count:.0f} MB" if count >= 1e7 else f"{1e-6 * count:.1f} MB"


def load_lines(load: Load) -> list[str]:
    """Return sentences about the machine's other work."""
    if load.reasons:
        return [f"DO NOT TRUST THESE NUMBERS: {' and '.join(load.reasons)}."]
    if not load.observed:
        return ["This system does not show what else was running."]
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
        benchmark: the results.
        pictures: the paths of the charts of :func:`to_charts`, by title.
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


CHARTS = ("latency", "throughput against batch", "throughput against threads")


def chart_name(markdown: Path, title: str) -> str:
    """Return the name of the file beside ``markdown`` into which a chart is written."""
    return f"{markdown.stem}-{title.replace(' ', '-')}.svg"


def require_own_charts(markdown: Path) -> None:
    """Check that charts only replace files that ``markdown`` shows; raises UsageError.

    A file that ``markdown`` shows is a chart of an earlier run.
    """
    shown = markdown.read_text(encoding="utf-8", errors="replace") if markdown.is_file() else ""
    for chart in (markdown.with_name(chart_name(markdown, title)) for title in CHARTS):
        if chart.exists() and chart.name not in shown:
            raise UsageError(
                f"A chart of --markdown would replace '{chart}', which '{markdown}' does not "
                "show, so no earlier run wrote it.",
                f"Name another Markdown file, or move '{chart.name}' away.",
            )


def to_charts(benchmark: Benchmark) -> dict[str, str]:
    """Return SVG files by title: latency side by side, throughput against batch and threads.

    A chart that would show a single value is left out. Drawing needs matplotlib, from the extra
    ``[report]``.
    """
    from effdet_deploy.reports.charts import Mark, Series, bar_chart, line_chart

    charts = {}
    if len(benchmark.results) > 1:
        bars = []
        for each in benchmark.results:
            threads = f", {each.threads} threads" if each.threads else ""
            name = f"{each.name}, batch {each.batch}{threads}"
            bars.append(Mark(name, 1e3 * each.end_to_end.median, is_ours=True))
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
