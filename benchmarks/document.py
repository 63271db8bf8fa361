"""What ``latency.py`` measured, as a Markdown document with charts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headline import headline
from scaling_section import scaling_charts, scaling_section

from effdet_deploy.benchmark.ceilings import Ceilings
from effdet_deploy.benchmark.profile import LAYOUT, STAGES
from effdet_deploy.files import write_atomically
from effdet_deploy.reports.benchmark import markdown_table
from effdet_deploy.reports.charts import (
    Mark,
    Series,
    bar_chart,
    line_chart,
    point_chart,
    share_chart,
)

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ("", "median ms", "ms an image", "95% interval", "p90", "p99", "spread", "ours is")
FOLDER = "benchmarks"
"""Of the charts, beside the document."""
ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
PREFACE = """# Benchmarks

Same weights (random, conditioned, seeded), same pictures, one process a table. *End to end* is from
letterboxed uint8 pictures in host memory to rows of boxes in host memory; *network* is from
normalised pixels to raw heads. Peers take turns; ratios are medians over the turns with the 95%
interval of the sign test, and "faster" means that the interval excludes 1. *Ours* without an
engine's name in the last column is ours in ONNX Runtime. What other programs disturbed is measured
again, and marked if it never was quiet.
"""
TIME_TEXT = """Milliseconds end to end at batch 1: the median of the table above, divided as the
engine's own profile divides its time. *Layout changes* are nodes that the engine put in. A profile
overstates what consists of many small nodes, such as NMS: the line in the summary above is measured
without one, by turns of the whole graph and of the network alone.
"""
CEILING_TEXT = """The multiply-accumulates of all convolutions over the time end to end, as a share
of the float32 matrix product above (INT8 and BF16 have higher ceilings of their own, so theirs may
pass 100%); and the bytes of float32 that the convolutions read and write at the least, as a share
of the bandwidth of a copy (what stays in caches moves faster).
"""
NO_BF16 = """This CPU has no BF16 instructions: the rows of BF16 show what converting to it costs,
not what it gains.
"""
STARTUP_TEXT = (
    "Fresh processes, each of which imports, loads and detects once; medians. *MB held* is the "
    "most host memory that the process ever held. Files are in the system's cache; torch.compile, "
    "which takes minutes to its first result, is left out."
)


def markdown(document: dict[str, Any], plots: dict[str, str] | None = None) -> str:
    """Return the document; ``plots`` maps a chart's key to its path beside it."""
    plots = plots or {}
    parts = [PREFACE, *_circumstances(document), headline(document)]
    for table in document["tables"]:
        parts.append(_section(table))
        parts += _picture(plots, _key(table), _title(table))
    parts += _throughput_section(document, plots)
    parts += _time_section(document, plots)
    parts += _startup_section(document)
    parts += _accuracy_section(plots)
    parts += scaling_section(document.get("scaling"), plots)
    return "\n".join(parts)


def _circumstances(document: dict[str, Any]) -> list[str]:
    best = document["ceilings"]
    has_bf16 = any("bf16" in each for each in document["machine"].split())
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return [
        f"Command: `python benchmarks/latency.py {document['command']}`\n",
        f"Machine: {document['machine']}.\n",
        *([] if has_bf16 else [NO_BF16]),
        f"Versions: {versions}.\n",
        f"Ceilings, measured here: {Ceilings(**best)}.\n",
    ]


def _picture(plots: dict[str, str], key: str, title: str) -> list[str]:
    return [f"![{title}]({plots[key]})\n"] if key in plots else []


def _key(table: dict[str, Any]) -> str:
    part = table["part"].replace(" ", "-")
    return f"{_group(table)}-b{table['batch']}-{part}"


def _group(table: dict[str, Any]) -> str:
    """Names what is of one variant, image size and number of threads."""
    height, width = table["image_size"]
    return f"{table['variant']}-{height}x{width}-{table['threads']}-threads"


def _title(table: dict[str, Any]) -> str:
    height, width = table["image_size"]
    return (
        f"{table['variant'].upper()} at {height}x{width}, batch {table['batch']}, "
        f"{table['threads']} threads: {table['part']}"
    )


def _section(table: dict[str, Any]) -> str:
    cells = [_cells(row, table["batch"]) for row in table["rows"]]
    lines = [f"## {_title(table)}", "", markdown_table(COLUMNS, cells)]
    lines.append(f"{table['rows'][0]['runs']} turns. {_disturbance(table['load'])}\n")
    return "\n".join(lines)


def _disturbance(load: dict[str, Any]) -> str:
    if reasons := load["reasons"]:
        return f"**Do not trust these numbers: {' and '.join(reasons)}.**"
    return f"Other programs took {load['other_share']:.1%} of the processors' time."


def _cells(row: dict[str, Any], batch: int) -> tuple[str, ...]:
    interval, ratio = row["median_interval_ms"], row["ours_is_faster_by"]
    return (
        row["name"],
        f"{row['median_ms']:.1f}",
        f"{row['median_ms'] / batch:.1f}",
        f"{interval[0]:.1f}-{interval[1]:.1f}" if interval else "",
        f"{row['p90_ms']:.1f}",
        f"{row['p99_ms']:.1f}",
        f"{row['variation']:.1%}",
        _ratio_text(ratio),
    )


def _ratio_text(ratio: dict[str, Any] | None) -> str:
    if ratio is None:
        return ""
    low, high = ratio["interval"]
    return f"{ratio['median']:.2f}x ({low:.2f}-{high:.2f}), {ratio['verdict']}"


def _throughput_section(document: dict[str, Any], plots: dict[str, str]) -> list[str]:
    pictures = [
        line
        for group in _groups(document)
        for line in _picture(
            plots, f"{group}-throughput", f"{group.upper()}: images a second against batch"
        )
    ]
    return ["## Throughput against batch\n", *pictures] if pictures else []


def _groups(document: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(map(_group, document["tables"])))


def _time_section(document: dict[str, Any], plots: dict[str, str]) -> list[str]:
    """Say where the time of our graphs goes, and how much of the machine they use."""
    tables = _whole_at_one(document)
    rows = {f"{table['variant'].upper()}, {name}": parts for table, name, parts in _times(tables)}
    stages = list(next(iter(rows.values()), {}))
    cells = [
        (name, *(f"{parts.get(stage, 0.0):.2f}" for stage in stages))
        for name, parts in rows.items()
    ]
    reached = [line for table in tables for line in _reached(table, document["ceilings"])]
    return [
        "## Where the time of our graphs goes\n",
        TIME_TEXT,
        markdown_table(("", *stages), cells),
        *_picture(plots, "stages", "where the time goes"),
        "## Share of the machine's ceilings\n",
        CEILING_TEXT,
        markdown_table(("", "GMACs", "arithmetic", "MB", "bandwidth"), reached),
    ]


def _whole_at_one(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        table
        for table in document["tables"]
        if table["part"] == "end to end" and table["batch"] == 1
    ]


def _times(tables: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str, dict[str, float]]]:
    """Return each table's profiled peers with milliseconds by part."""
    found = []
    for table in tables:
        medians = {row["name"]: row["median_ms"] for row in table["rows"]}
        for name, shares in table["graph_shares"].items():
            times = {stage: shares.get(stage, 0.0) * medians[name] for stage in (*STAGES, LAYOUT)}
            found.append((table, name, times))
    return found


def _reached(table: dict[str, Any], ceilings: dict[str, Any]) -> list[tuple[str, ...]]:
    work = table["work"]
    return [
        (
            f"{table['variant'].upper()}, {row['name']}",
            f"{work['macs'] / 1e9:.2f}",
            f"{2e3 * work['macs'] / row['median_ms'] / ceilings['flops']:.0%}",
            f"{work['traffic'] / 1e6:.0f}",
            f"{1e3 * work['traffic'] / row['median_ms'] / ceilings['bandwidth']:.0%}",
        )
        for row in table["rows"]
    ]


def _startup_section(document: dict[str, Any]) -> list[str]:
    startup = document.get("startup")
    if not startup:
        return []
    cells = [
        (
            row["name"],
            f"{row['until_first_s']:.2f}",
            f"{row['import_s']:.2f}",
            f"{row['load_s']:.2f}",
            f"{row['first_s']:.2f}",
            f"{row['peak_memory'] / 1e6:.0f}",
            f"{row['file_size'] / 1e6:.1f}",
        )
        for row in startup["rows"]
    ]
    sooner = startup["ours_is_sooner_by"]
    low, high = sooner["interval"]
    columns = ("", "s to the first detection", "import", "load", "first run", "MB held", "MB file")
    return [
        f"## Getting going: {startup['variant'].upper()}\n",
        (
            f"{STARTUP_TEXT} Ours in ONNX Runtime, which imports no torch, and effdet took turns "
            f"{sooner['pairs']} times: ours is {sooner['median']:.1f}x as soon "
            f"({low:.1f}-{high:.1f}). {_disturbance(startup['load'])}\n"
        ),
        markdown_table(columns, cells),
    ]


def _accuracy_section(plots: dict[str, str]) -> list[str]:
    if "accuracy" not in plots:
        return []
    return [
        "## Latency against accuracy\n",
        (
            "The digits detector in each precision, as `benchmarks/accuracy.py` measured mAP and "
            "latency of one and the same file; each in the engine that runs it fastest.\n"
        ),
        *_picture(plots, "accuracy", "latency against accuracy"),
    ]


def write_plots(document: dict[str, Any], directory: Path) -> dict[str, str]:
    """Draw every chart into a folder in ``directory``.

    Returns:
        The path of each chart beside the document, by its key.
    """
    drawn = {_key(table): _bars(table) for table in document["tables"]}
    drawn |= _throughput_charts(document)
    times = _times(_whole_at_one(document))
    if times:
        rows = {f"{table['variant'].upper()}, {name}": parts for table, name, parts in times}
        drawn["stages"] = share_chart("Where the time goes, end to end", rows, "milliseconds")
    drawn |= _accuracy_chart(document.get("accuracy"))
    drawn |= scaling_charts(document.get("scaling"))
    (directory / FOLDER).mkdir(exist_ok=True)
    paths = {}
    for key, text in drawn.items():
        paths[key] = f"{FOLDER}/{key}.svg"
        write_atomically(directory / paths[key], text)
    return paths


def _bars(table: dict[str, Any]) -> str:
    bars = [
        Mark(row["name"], row["median_ms"] / table["batch"], is_ours=row["name"].startswith("ours"))
        for row in table["rows"]
    ]
    return bar_chart(_title(table), "milliseconds an image (median; less is better)", bars)


def _throughput_charts(document: dict[str, Any]) -> dict[str, str]:
    charts = {}
    for group in _groups(document):
        found: dict[str, dict[float, float]] = {}
        for table in document["tables"]:
            trusted = not table["load"]["reasons"]
            if trusted and _group(table) == group and table["part"] == "end to end":
                for row in table["rows"]:
                    speed = 1e3 * table["batch"] / row["median_ms"]
                    found.setdefault(row["name"], {})[table["batch"]] = speed
        lines = [
            Series(name, tuple(points.items())) for name, points in found.items() if len(points) > 1
        ]
        if lines:
            charts[f"{group}-throughput"] = line_chart(
                f"{group.upper()}, end to end", "batch", "images a second", lines
            )
    return charts


def _accuracy_chart(accuracy: dict[str, Any] | None) -> dict[str, str]:
    """Draw each file of ``accuracy.py`` in the engine that runs it fastest."""
    marks = []
    for name, row in (accuracy or {"rows": {}})["rows"].items():
        times = {each: found["median_ms"] for each, found in row.get("latency", {}).items()}
        # A file that is slow elsewhere says nothing until its own engine was timed.
        if "ap" in row and row["engine"] in times:
            engine = min(times, key=lambda each: times[each])
            label = f"{name}; {ENGINES[engine]}"
            is_ours = not name.startswith("onnxruntime.quantization")
            marks.append(Mark(label, times[engine], 100 * row["ap"], is_ours))
    if not marks:
        return {}
    title = "The digits detector, D0 at batch 1, end to end"
    return {"accuracy": point_chart(title, "milliseconds", "mAP on its test split", marks)}
