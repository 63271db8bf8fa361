"""Write the results of ``accuracy.py`` into a document as Markdown tables.

A table goes between the lines ``<!-- accuracy: NAME -->`` and ``<!-- end -->`` of the document.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from precisions import BASELINE, entries

from effdet_deploy.files import write_atomically
from effdet_deploy.reports.benchmark import markdown_table

if TYPE_CHECKING:
    from pathlib import Path

    Row = dict[str, Any]

_MARKED = re.compile(r"(<!-- accuracy: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "pytorch": "PyTorch"}
_TIMED = ("onnxruntime", "openvino")
_SHORT = ("", "mAP", "against FP32, points", "MB", "INT8 MACs")
_FULL = (
    *("", "computed by", "scenes", "mAP", "AP50", "AP75"),
    *("difference, points", "MB", "INT8 MACs"),
)
_LATENCY = ("ONNX Runtime, ms", "against FP32 there", "OpenVINO, ms", "against FP32 there")
_NOISE = ("INT8", "work", "class, dB", "box, dB")


def sections(document: dict[str, Any]) -> dict[str, str]:
    """Return every table by the name that documents use for it."""
    known = document["rows"]
    rows = {entry.name: known[entry.name] for entry in entries() if entry.name in known}
    main = {name: row for name, row in rows.items() if not row["technique"]}
    techniques = {name: _full(name, row) for name, row in rows.items() if row["technique"]}
    full = {name: _full(name, row) for name, row in main.items()}
    head = _FULL
    if any("latency" in row for row in main.values()):
        head += _LATENCY
        full = {name: (*full[name], *_latency(row)) for name, row in main.items()}
    remarks = [f"- {name}: {row['remark']}\n" for name, row in main.items() if row.get("remark")]
    return {
        "main": markdown_table(head, [*full.values()])
        + "".join(["\n", *remarks] if remarks else [])
        + _load(document),
        "techniques": markdown_table(_FULL, [*techniques.values()]),
        "short": markdown_table(
            _SHORT, [_short(name, row) for name, row in main.items() if "full range" not in name]
        ),
    } | {name: _noise(cells) for name, cells in document["noise"].items()}


def _full(name: str, row: Row) -> tuple[str, ...]:
    runtime = _RUNTIMES[row["engine"]]
    if "failed" in row:
        return (name, runtime, "failed", *[""] * (len(_FULL) - 3))
    metrics = (f"{100 * row[key]:.2f}" for key in ("ap", "ap50", "ap75"))
    return (name, runtime, str(row["scenes"]), *metrics, *_costs(row))


def _short(name: str, row: Row) -> tuple[str, ...]:
    if "failed" in row:
        return (name, "failed", "", "", "")
    return (name, f"{100 * row['ap']:.2f}", *_costs(row))


def _costs(row: Row) -> tuple[str, str, str]:
    """Return a row's difference from its baseline, its size and its share in INT8."""
    found, size, share = row.get("difference"), row.get("size"), row.get("int8_share")
    text = ""
    if found:
        text = f"{found['points']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"
        if row["baseline"] != BASELINE:
            text += f" against {row['baseline']}"
    return text, f"{size / 1e6:.1f}" if size else "", f"{share:.0%}" if share else ""


def _latency(row: Row) -> list[str]:
    timed, cells = {} if "failed" in row else row.get("latency", {}), []
    for runtime in _TIMED:
        found, text = timed.get(runtime), ""
        if found and (ratio := found["ratio_to_first"]):
            text = f"{ratio['median']:.2f}x ({ratio['interval'][0]:.2f}-{ratio['interval'][1]:.2f})"
        cells += [f"{found['median_ms']:.1f}" if found else "", text]
    return cells


def _load(document: dict[str, Any]) -> str:
    """Return a text that says how busy the machine was while latency was measured."""
    text = ""
    for runtime, where in document.get("latency_environment", {}).items():
        load = where["load"]
        verdict = "**not to be trusted**" if load["reasons"] else "quiet"
        text += f"\nWhile the latency in {_RUNTIMES[runtime]} was measured, other programs took "
        text += f"{load['other_share']:.1%} of the processors' time ({verdict}).\n"
    return text


def _noise(cells: dict[str, dict[str, float]]) -> str:
    rows = [
        (name, f"{cell['share']:.1%}", f"{cell['class']:.1f}", f"{cell['box']:.1f}")
        for name, cell in cells.items()
    ]
    return markdown_table(_NOISE, rows)


def fill_document(path: Path, parts: dict[str, str]) -> None:
    """Replace the text between the marks in ``path``, for every table that ``parts`` holds."""

    def filled(match: re.Match[str]) -> str:
        opening, name, closing = match.groups()
        return f"{opening}{parts[name]}{closing}" if name in parts else match.group()

    write_atomically(path, _MARKED.sub(filled, path.read_text(encoding="utf-8")))
