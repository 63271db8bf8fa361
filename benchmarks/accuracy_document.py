"""What ``accuracy.py`` measured, as Markdown tables put between the marks of a document.

A document says where with ``<!-- accuracy: NAME -->`` and ``<!-- end -->``, each on its own line.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from precisions import BASELINE, entries

from effdet_deploy.files import write_atomically
from effdet_deploy.reports.benchmark import markdown_table

if TYPE_CHECKING:
    from pathlib import Path

_MARKED = re.compile(r"(<!-- accuracy: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "pytorch": "PyTorch"}
_FULL = (
    "",
    "computed by",
    "scenes",
    "mAP",
    "AP50",
    "AP75",
    "difference, points",
    "MB",
    "INT8 MACs",
)
_LATENCY = ("ONNX Runtime, ms", "against FP32 there", "OpenVINO, ms", "against FP32 there")
_SHORT = ("", "mAP", "against FP32, points", "MB", "INT8 MACs")


def sections(document: dict[str, Any]) -> dict[str, str]:
    """Return every table by the name that documents call it by."""
    rows = {
        entry.name: document["rows"][entry.name]
        for entry in entries()
        if entry.name in document["rows"]
    }
    main = {name: row for name, row in rows.items() if not row["technique"]}
    techniques = {name: row for name, row in rows.items() if row["technique"]}
    with_latency = any("latency" in row for row in main.values())
    head = _FULL + (_LATENCY if with_latency else ())
    return {
        "main": _table(head, [_full(name, row, with_latency) for name, row in main.items()])
        + "".join(_remarks(main))
        + _load(document),
        "techniques": _table(_FULL, [_full(name, row, False) for name, row in techniques.items()]),
        "short": _table(_SHORT, [_short(name, row) for name, row in main.items()]),
    } | {name: _noise(cells) for name, cells in document["noise"].items()}


def _table(head: tuple[str, ...], cells: list[tuple[str, ...]]) -> str:
    return markdown_table(head, cells)


def _full(name: str, row: dict[str, Any], latency: bool) -> tuple[str, ...]:
    engine = _ENGINES[row["engine"]]
    if "failed" in row:
        return (name, engine, "failed", *[""] * (len(_FULL) - 3 + latency * len(_LATENCY)))
    cells = (
        name,
        engine,
        str(row["scenes"]),
        *(f"{100 * row[key]:.2f}" for key in ("ap", "ap50", "ap75")),
    )
    cells += (_difference(row), *_costs(row))
    if latency:
        for each in ("onnxruntime", "openvino"):
            cells += _latency(row.get("latency", {}).get(each))
    return cells


def _short(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    if "failed" in row:
        return (name, "failed", "", "", "")
    return (name, f"{100 * row['ap']:.2f}", _difference(row), *_costs(row))


def _costs(row: dict[str, Any]) -> tuple[str, str]:
    size, share = row.get("size"), row.get("int8_share")
    return f"{size / 1e6:.1f}" if size else "", f"{share:.0%}" if share else ""


def _difference(row: dict[str, Any]) -> str:
    found = row.get("difference")
    if found is None:
        return ""
    text = f"{found['points']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"
    return text if row["baseline"] == BASELINE else f"{text} of {row['baseline']}"


def _latency(found: dict[str, Any] | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    ratio = found["ratio_to_first"]
    text = ""
    if ratio is not None:
        text = f"{ratio['median']:.2f}x ({ratio['interval'][0]:.2f}-{ratio['interval'][1]:.2f})"
    return f"{found['median_ms']:.1f}", text


def _remarks(rows: dict[str, dict[str, Any]]) -> list[str]:
    found = [f"- {name}: {row['remark']}\n" for name, row in rows.items() if row.get("remark")]
    return ["\n", *found] if found else []


def _load(document: dict[str, Any]) -> str:
    """Say what else ran while latency was measured."""
    text = ""
    for engine, where in document.get("latency_environment", {}).items():
        load = where["load"]
        verdict = "**not to be trusted**" if load["reasons"] else "quiet"
        text += f"\nLatency in {_ENGINES[engine]}: other programs took {load['other_share']:.1%} "
        text += f"of the processors' time meanwhile ({verdict}).\n"
    return text


def _noise(cells: dict[str, dict[str, float]]) -> str:
    return markdown_table(
        ("INT8", "work", "class, dB", "box, dB"),
        [
            (name, f"{cell['share']:.1%}", f"{cell['class']:.1f}", f"{cell['box']:.1f}")
            for name, cell in cells.items()
        ],
    )


def fill_document(path: Path, parts: dict[str, str]) -> None:
    """Replace what stands between the marks of every part that ``path`` asks for."""

    def filled(match: re.Match[str]) -> str:
        opening, name, closing = match.groups()
        return f"{opening}{parts[name]}{closing}" if name in parts else match.group()

    write_atomically(path, _MARKED.sub(filled, path.read_text(encoding="utf-8")))
