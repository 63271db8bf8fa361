"""What ``scaling.py`` measured, as sections of the document."""

from __future__ import annotations

from typing import Any

from effdet_deploy.reports.benchmark import markdown_table
from effdet_deploy.reports.charts import Mark, Series, bar_chart, line_chart

Points = list[dict[str, Any]]

NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
TITLES = {
    "variant": "Cost over variants",
    "size": "Cost over image sizes",
    "batch": "Cost over batch sizes",
    "threads": "Cost over threads",
    "detections": "Cost over numbers of detections",
    "export": "What an export takes",
}
AXES = {
    "variant": "variant",
    "size": "side of the image",
    "batch": "batch",
    "threads": "threads",
    "detections": "rows kept of candidates",
}


def scaling_section(document: dict[str, Any] | None, plots: dict[str, str]) -> list[str]:
    """Return the sections, or nothing where nothing was measured."""
    if not document or not document["points"]:
        return []
    parts = [
        "# Scaling\n",
        (
            f"Command: `python benchmarks/scaling.py {document['command']}`; float32, end to end, "
            "every size the variant's own and batch 1 unless said.\n"
        ),
    ]
    for kind, title in TITLES.items():
        found = _of_kind(document, kind)
        if not found:
            continue
        parts += [f"## {title}\n", _table(kind, found)]
        key = f"scaling-{kind}"
        if key in plots:
            parts.append(f"![{title}]({plots[key]})\n")
        reasons = {reason for each in found for reason in each["reasons"]}
        if reasons:
            parts.append(f"**Do not trust all of these numbers: {' and '.join(reasons)}.**\n")
    return parts


def _of_kind(document: dict[str, Any], kind: str) -> Points:
    return [each for each in document["points"].values() if each["kind"] == kind]


def _table(kind: str, found: Points) -> str:
    if kind == "export":
        return _export_table(found)
    columns = [AXES[kind], "GMACs"]
    for engine in NAMES.values():
        columns += [f"{engine} ms", "spread"]
    cells = []
    for each in found:
        row = [_place(kind, each), f"{each['macs'] / 1e9:.2f}"]
        for engine in NAMES:
            timing = each["engines"][engine]
            row += [f"{timing['median_ms']:.1f}", f"{timing['variation']:.1%}"]
        cells.append((*row, f"{_cheapest(each) / each['batch']:.1f}"))
    return markdown_table((*columns, "ms an image, the faster"), cells)


def _export_table(found: Points) -> str:
    columns = ("variant", "export s", "whole process s", "peak memory GB", "file MB")
    cells = [
        (
            _place("variant", each),
            f"{each['export_s']:.1f}",
            f"{each['process_s']:.1f}",
            f"{each['peak_memory'] / 1e9:.2f}",
            f"{each['file_size'] / 1e6:.1f}",
        )
        for each in found
    ]
    return markdown_table(columns, cells)


def _place(kind: str, each: dict[str, Any]) -> str:
    height, width = each["image_size"]
    return {
        "variant": f"{each['variant'].upper()} at {height}x{width}",
        "size": f"{height}x{width}",
        "batch": str(each["batch"]),
        "threads": str(each["threads"]),
        "detections": f"{each['detections']} of {each['candidates']}",
    }[kind]


def _cheapest(each: dict[str, Any]) -> float:
    return min(float(timing["median_ms"]) for timing in each["engines"].values())


def scaling_charts(document: dict[str, Any] | None) -> dict[str, str]:
    """Draw a chart for each axis that has more than one point."""
    if not document:
        return {}
    charts = {}
    for kind, title in TITLES.items():
        found = _of_kind(document, kind)
        if len(found) > 1:
            charts[f"scaling-{kind}"] = _chart(kind, title, found)
    return charts


def _chart(kind: str, title: str, found: Points) -> str:
    if kind == "export":
        bars = [Mark(each["variant"].upper(), each["export_s"], is_ours=True) for each in found]
        return bar_chart(title, "seconds", bars)
    if kind in ("variant", "detections"):
        bars = [Mark(_place(kind, each), _cheapest(each), is_ours=True) for each in found]
        return bar_chart(title, "milliseconds in the faster engine", bars)
    label = "images a second" if kind == "batch" else "milliseconds"
    lines = [
        Series(
            name,
            tuple(
                (_number(kind, each), _height(kind, each["engines"][engine], each))
                for each in found
            ),
        )
        for engine, name in NAMES.items()
    ]
    return line_chart(title, AXES[kind], label, lines)


def _number(kind: str, each: dict[str, Any]) -> float:
    return float(each["image_size"][0] if kind == "size" else each[kind])


def _height(kind: str, timing: dict[str, Any], each: dict[str, Any]) -> float:
    median = float(timing["median_ms"])
    return 1e3 * each["batch"] / median if kind == "batch" else median
