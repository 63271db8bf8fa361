"""Write the results of ``scaling.py`` as sections of the document."""

from __future__ import annotations

from typing import Any

from sections import versions_line

from effdet_deploy.reports.benchmark import markdown_table
from effdet_deploy.reports.charts import Mark, Series, bar_chart, line_chart

Points = list[dict[str, Any]]

NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
AXES = {
    "variant": ("Cost over variants", "variant"),
    "size": ("Cost over image sizes", "side of the image"),
    "batch": ("Cost over batch sizes", "batch"),
    "threads": ("Cost over threads", "threads"),
    "detections": ("Cost over numbers of detections", "rows kept of candidates"),
    "export": ("What an export takes", "variant"),
}
"""For each kind of point the title of its section, and the heading of its first column."""
EXPORT_TEXT = """*Whole process* adds the time to import torch and to make the network. *Peak
memory* is that of the larger process: the export itself, or the child process
that simplifies the graph.
"""


def scaling_section(document: dict[str, Any] | None, plots: dict[str, str]) -> list[str]:
    """Return the sections, or nothing if nothing was measured."""
    if not document or not document["points"]:
        return []
    parts = [
        "## Scaling\n",
        (
            f"Command: `python benchmarks/scaling.py {document['command']}`; the times are "
            "medians in float32, end to end, in the variant's own size and with batch 1 unless the "
            "table says otherwise. *Spread* is the standard deviation of the times divided by "
            "their mean, and *ms an image, the faster* the time for one image in the faster "
            "runtime.\n"
        ),
        f"Machine: {document['machine']}.\n",
        versions_line(document),
    ]
    for kind, found in _by_kind(document).items():
        title, _ = AXES[kind]
        parts += [f"### {title}\n", *([EXPORT_TEXT] if kind == "export" else [])]
        parts.append(_table(kind, found))
        if f"scaling-{kind}" in plots:
            parts.append(f"![{title}]({plots[f'scaling-{kind}']})\n")
        reasons = {reason for each in found for reason in each["reasons"]}
        if reasons:
            parts.append(f"**Do not trust all of these numbers: {' and '.join(reasons)}.**\n")
    return parts


def scaling_charts(document: dict[str, Any] | None) -> dict[str, str]:
    """Draw a chart for each axis that has more than one point."""
    return {
        f"scaling-{kind}": _chart(kind, found)
        for kind, found in _by_kind(document or {"points": {}}).items()
        if len(found) > 1
    }


def _by_kind(document: dict[str, Any]) -> dict[str, Points]:
    every = document["points"].values()
    found = {kind: [each for each in every if each["kind"] == kind] for kind in AXES}
    return {kind: points for kind, points in found.items() if points}


def _table(kind: str, found: Points) -> str:
    if kind == "export":
        columns = ("variant", "export s", "whole process s", "peak memory GB", "file MB")
        cells = [
            (
                _place(each),
                f"{each['export_s']:.1f}",
                f"{each['process_s']:.1f}",
                f"{each['peak_memory'] / 1e9:.2f}",
                f"{each['file_size'] / 1e6:.1f}",
            )
            for each in found
        ]
        return markdown_table(columns, cells)
    timed = [text for name in NAMES.values() for text in (f"{name} ms", "spread")]
    rows = []
    for each in found:
        row = [_place(each), f"{each['macs'] / 1e9:.2f}"]
        for runtime in NAMES:
            timing = each["engines"][runtime]
            row += [f"{timing['median_ms']:.1f}", f"{timing['variation']:.1%}"]
        rows.append((*row, f"{_cheapest(each) / each['batch']:.1f}"))
    return markdown_table((AXES[kind][1], "GMACs", *timed, "ms an image, the faster"), rows)


def _place(each: dict[str, Any]) -> str:
    """Return the text that names a point's place on its axis."""
    height, width = each["image_size"]
    variant = f"{each['variant'].upper()} at {height}x{width}"
    return {
        "variant": variant,
        "size": f"{height}x{width}",
        "batch": str(each["batch"]),
        "threads": str(each["threads"]),
        "detections": f"{each['detections']} of {each['candidates']}",
        "export": variant,
    }[each["kind"]]


def _cheapest(each: dict[str, Any]) -> float:
    return min(float(timing["median_ms"]) for timing in each["engines"].values())


def _chart(kind: str, found: Points) -> str:
    title, axis = AXES[kind]
    if kind == "export":
        bars = [Mark(each["variant"].upper(), each["export_s"], is_ours=True) for each in found]
        return bar_chart(title, "seconds", bars)
    if kind in ("variant", "detections"):
        bars = [Mark(_place(each), _cheapest(each), is_ours=True) for each in found]
        return bar_chart(title, "milliseconds in the faster runtime", bars)
    lines: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES.values()}
    for each in found:
        x = float(each["image_size"][0] if kind == "size" else each[kind])
        for runtime, name in NAMES.items():
            median = float(each["engines"][runtime]["median_ms"])
            lines[name].append((x, 1e3 * each["batch"] / median if kind == "batch" else median))
    label = "images a second" if kind == "batch" else "milliseconds"
    series = [Series(name, tuple(points)) for name, points in lines.items()]
    return line_chart(title, axis, label, series)
