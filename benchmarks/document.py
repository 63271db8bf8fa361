"""Write the results of ``latency.py`` as a Markdown document with charts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from candidates_section import candidates_section
from files_section import files_section
from gpu_section import faster_by, gpu_section
from headline import headline
from own_charts import point_chart, share_chart
from scaling_section import NAMES, scaling_charts, scaling_section
from sections import disturbance, run_lines

from effdet_deploy.benchmark.ceilings import Ceilings
from effdet_deploy.benchmark.machine import Machine
from effdet_deploy.benchmark.profile import LAYOUT, STAGES, Work
from effdet_deploy.files import write_atomically
from effdet_deploy.reports.benchmark import markdown_table
from effdet_deploy.reports.charts import Mark, Series, bar_chart, line_chart

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ("", "median ms", "ms an image", "95% interval", "p90", "p99", "spread", "ours is")
FOLDER = "benchmarks"
"""The folder of the charts, beside the document."""
PREFACE = """# Benchmarks

Every program in a table runs the same weights (random ones with a fixed seed, scaled so that
detections mean something) on the same pictures, in one process. *Ours* are files that effdet-deploy
exported. *effdet eager* is the PyTorch project effdet without compilation, and *effdet naive ONNX*
its network in a plain ONNX export, between effdet's own normalization and post-processing in
PyTorch. *End to end* is the time from letterboxed uint8 pictures in host memory to boxes in host
memory. *Network* is the time from normalized pixels to the network's outputs. The programs take
turns. Ratios are medians over the turns with the 95% interval of the sign test, and "faster" means
that the interval excludes 1. The column *ours is* says how many times as fast our file in ONNX
Runtime is as the program of the row. The column *aim* says what we aim at. *Ms an image* is the
median divided by the batch, *95% interval* the interval of the median, and *spread* the standard
deviation of the times divided by their mean. 90% of the times are at most *p90*, and 99% at most
*p99*. *Selection* chooses the *candidates*, the boxes that enter NMS: 1000 unless a row says 5000,
as many as effdet has. With `--nms onnx`, NMS is ONNX's own operator NonMaxSuppression. Measurements
that other programs disturbed were repeated; they are marked if the machine was never quiet.
"""
TIME_TEXT = """The table gives milliseconds end to end at batch 1. It divides the medians of the
tables above in the proportions of the runtime's own profile. *Fpn* is the feature pyramid. *Head
reorder* joins the outputs of all levels, *decode* computes the boxes from the outputs of the
network, and *output rows* writes the detections. *Layout changes* are nodes that the runtime added
to store tensors in another order. A profile overstates parts that consist of many small nodes, such
as NMS. The share of preprocess, decode, selection and NMS in the first table of this page was
measured without a profile, by running the whole graph and the network alone in turns.
"""
CEILING_TEXT = """*GMACs* are billions of multiply-accumulates in all convolutions. *Arithmetic* is
this number, divided by the time end to end, as a share of the float32 matrix product at the top of
this page. INT8 and BF16 have higher ceilings of their own, so their share may pass 100%. *MB* is
what the convolutions must at least read and write in float32. *Bandwidth* is this number, divided
by the time end to end, as a share of the bandwidth of a copy. Data that stays in caches moves
faster.
"""
ACCURACY_TEXT = (
    "The chart shows the [digits detector](index.md#export), a trained D0, in each "
    "precision. `benchmarks/accuracy.py` measured "
    "mAP and latency on one and the same file, in the runtime that runs it fastest.\n"
)
STARTUP_TEXT = (
    "Every program starts in a fresh process, which imports its packages, loads the model and "
    "detects once. The table gives medians in seconds. *MB held* is the most host memory that the "
    "process ever held, and *MB file* the size of the model. The files are already in the memory "
    "of the operating system. torch.compile is left out, because it takes minutes to its first "
    "result."
)


def markdown(document: dict[str, Any], plots: dict[str, str] | None = None) -> str:
    """Return the document; ``plots`` maps a chart's key to its path relative to the document."""
    plots = plots or {}

    def picture(key: str, title: str) -> list[str]:
        return [f"![{title}]({plots[key]})\n"] if key in plots else []

    parts = [PREFACE, *run_lines(document), headline(document)]
    for table in document["tables"]:
        cells = [_cells(row, table["batch"]) for row in table["rows"]]
        turns = f"{table['rows'][0]['runs']} turns. {disturbance(table['load'])}\n"
        parts.append(f"## {_title(table)}\n\n{markdown_table(COLUMNS, cells)}\n{turns}")
        parts += picture(_key(table), _title(table))
    pictures = [
        line
        for group in dict.fromkeys(map(_group, document["tables"]))
        for line in picture(
            f"{group}-throughput", f"{group.upper()}: images a second against batch"
        )
    ]
    if pictures:
        parts += ["## Throughput against batch\n", *pictures]
    times, reached = _time_tables(document)
    parts += ["## Where the time of our graphs goes\n", TIME_TEXT, times]
    parts += picture("stages", "where the time goes")
    parts += ["## Share of the machine's ceilings\n", CEILING_TEXT, reached]
    if startup := document.get("startup"):
        parts += _startup_section(startup)
    if "accuracy" in plots:
        parts += ["## Latency against accuracy\n", ACCURACY_TEXT, *_origins(document["accuracy"])]
        parts += picture("accuracy", "latency against accuracy")
    parts += candidates_section(document.get("candidates"))
    parts += files_section(document.get("pictures"))
    parts += scaling_section(document.get("scaling"), plots)
    parts.append(gpu_section(document.get("gpu")))
    return "\n".join(parts)


def _key(table: dict[str, Any]) -> str:
    part = table["part"].replace(" ", "-")
    return f"{_group(table)}-b{table['batch']}-{part}"


def _group(table: dict[str, Any]) -> str:
    """Return the name that tables with one variant, image size and number of threads share."""
    height, width = table["image_size"]
    return f"{table['variant']}-{height}x{width}-{table['threads']}-threads"


def _title(table: dict[str, Any]) -> str:
    height, width = table["image_size"]
    return (
        f"{table['variant'].upper()} at {height}x{width}, batch {table['batch']}, "
        f"{table['threads']} threads: {table['part']}"
    )


def _cells(row: dict[str, Any], batch: int) -> tuple[str, ...]:
    interval = row["median_interval_ms"]
    return (
        row["name"],
        f"{row['median_ms']:.1f}",
        f"{row['median_ms'] / batch:.1f}",
        f"{interval[0]:.1f}-{interval[1]:.1f}" if interval else "",
        f"{row['p90_ms']:.1f}",
        f"{row['p99_ms']:.1f}",
        f"{row['variation']:.1%}",
        faster_by(row),
    )


def _time_tables(document: dict[str, Any]) -> tuple[str, str]:
    """Return where the time of our graphs goes, and how much of the machine they use."""
    rows = _times(document)
    stages = list(next(iter(rows.values()), {}))
    cells = [
        (name, *(f"{parts.get(stage, 0.0):.2f}" for stage in stages))
        for name, parts in rows.items()
    ]
    ceilings, reached = document["ceilings"], []
    for table in _whole_at_one(document):
        work = table["work"]
        for row in table["rows"]:
            seconds = row["median_ms"] / 1e3
            shares = Ceilings(**ceilings).reached(Work(**work), seconds)
            reached.append(
                (
                    f"{table['variant'].upper()}, {row['name']}",
                    f"{work['macs'] / 1e9:.2f}",
                    f"{shares.arithmetic:.0%}",
                    f"{work['traffic'] / 1e6:.0f}",
                    f"{shares.bandwidth:.0%}",
                )
            )
    columns = ("", "GMACs", "arithmetic", "MB", "bandwidth")
    return markdown_table(("", *stages), cells), markdown_table(columns, reached)


def _whole_at_one(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        table
        for table in document["tables"]
        if table["part"] == "end to end" and table["batch"] == 1
    ]


def _times(document: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the milliseconds of the graph's parts for every variant and program profiled."""
    found = {}
    for table in _whole_at_one(document):
        medians = {row["name"]: row["median_ms"] for row in table["rows"]}
        for name, shares in table["graph_shares"].items():
            times = {stage: shares.get(stage, 0.0) * medians[name] for stage in (*STAGES, LAYOUT)}
            found[f"{table['variant'].upper()}, {name}"] = times
    return found


def _origins(accuracy: dict[str, Any]) -> list[str]:
    """Return a line for each machine and version that measured latencies of the chart."""
    origins = {
        f"Machine: {Machine(**where['machine'])}; effdet-deploy {where['effdet_deploy']}.\n": None
        for where in accuracy.get("latency_environment", {}).values()
    }
    return list(origins)


def _startup_section(startup: dict[str, Any]) -> list[str]:
    cells = [
        (
            row["name"],
            *(f"{row[each]:.2f}" for each in ("until_first_s", "import_s", "load_s", "first_s")),
            f"{row['peak_memory'] / 1e6:.0f}",
            f"{row['file_size'] / 1e6:.1f}",
        )
        for row in startup["rows"]
    ]
    sooner = startup["ours_is_sooner_by"]
    low, high = sooner["interval"]
    columns = ("", "s to the first detection", "import", "load", "first run", "MB held", "MB file")
    return [
        f"## Time to the first detection: {startup['variant'].upper()}\n",
        (
            f"{STARTUP_TEXT} Ours in ONNX Runtime, which imports no torch, and effdet took turns "
            f"{sooner['pairs']} times: effdet takes {sooner['median']:.1f}x as long "
            f"({low:.1f}-{high:.1f}). {disturbance(startup['load'])}\n"
        ),
        markdown_table(columns, cells),
    ]


def write_plots(document: dict[str, Any], directory: Path) -> dict[str, str]:
    """Draw every chart into a folder in ``directory``.

    Returns:
        The path of each chart relative to the document, by its key.
    """
    drawn = {_key(table): _bars(table) for table in document["tables"]}
    drawn |= _throughput_charts(document)
    if times := _times(document):
        drawn["stages"] = share_chart("Where the time goes, end to end", times, "milliseconds")
    drawn |= _accuracy_chart(document.get("accuracy"))
    drawn |= scaling_charts(document.get("scaling"))
    (directory / FOLDER).mkdir(exist_ok=True)
    paths = {key: f"{FOLDER}/{key}.svg" for key in drawn}
    for key, text in drawn.items():
        write_atomically(directory / paths[key], text)
    return paths


def _bars(table: dict[str, Any]) -> str:
    bars = [
        Mark(row["name"], row["median_ms"] / table["batch"], is_ours=row["name"].startswith("ours"))
        for row in table["rows"]
    ]
    return bar_chart(_title(table), "milliseconds an image (median; less is better)", bars)


def _throughput_charts(document: dict[str, Any]) -> dict[str, str]:
    found: dict[str, dict[str, dict[float, float]]] = {}
    for table in document["tables"]:
        if table["part"] == "end to end" and not table["load"]["reasons"]:
            lines = found.setdefault(_group(table), {})
            for row in table["rows"]:
                speed = 1e3 * table["batch"] / row["median_ms"]
                lines.setdefault(row["name"], {})[table["batch"]] = speed
    charts = {}
    for group, lines in found.items():
        series = [
            Series(name, tuple(each.items())) for name, each in lines.items() if len(each) > 1
        ]
        if series:
            title = f"{group.upper()}, end to end"
            charts[f"{group}-throughput"] = line_chart(title, "batch", "images a second", series)
    return charts


def _accuracy_chart(accuracy: dict[str, Any] | None) -> dict[str, str]:
    """Draw each file of ``accuracy.py`` in the runtime that runs it fastest."""
    marks = []
    for name, row in (accuracy or {"rows": {}})["rows"].items():
        times = {each: found["median_ms"] for each, found in row.get("latency", {}).items()}
        # The file may be slow in other runtimes, so it is left out until its own runtime was timed.
        if "ap" in row and row["engine"] in times:
            runtime = min(times, key=lambda each: times[each])
            label = f"{name}; {NAMES[runtime]}"
            is_ours = not name.startswith("onnxruntime.quantization")
            marks.append(Mark(label, times[runtime], 100 * row["ap"], is_ours))
    if not marks:
        return {}
    title = "The digits detector, D0 at batch 1, end to end"
    return {"accuracy": point_chart(title, "milliseconds", "mAP on its test split", marks)}
