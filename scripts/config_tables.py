"""Write the tables of all configurations into the docs, from the lists that tests wrote.

``python scripts/config_tables.py engines FILE...`` writes the engines that TensorRT-RTX built, into
docs/tensorrt.md; ``fp16 FILE...`` writes what FP16 costs, into docs/verification.md. Both pages
give the command that runs the tests.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effdet_deploy.files import write_atomically
from effdet_deploy.reports.benchmark import markdown_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Lines = dict[tuple[str, ...], dict[str, Any]]

DOCS = Path(__file__).parent.parent / "docs"
BUILDS = {
    "FP32": ("fp32", "fixed"),
    "FP32, batch 1..4": ("fp32", "ranged"),
    "FP16": ("fp16", "fixed"),
    "FP16, batch 1..4": ("fp16", "ranged"),
    "INT8": ("int8", "fixed"),
}
RUNTIMES = {"ONNX Runtime": "tensorrt", "OpenVINO": "openvino"}
"""The runtimes that run the FP16 files on a CPU, and the target that their files are made for."""


@dataclass(frozen=True)
class Table:
    """A table of a page: one row for each configuration.

    Attributes:
        page: the file name of the page.
        key: the fields that tell the lines of one configuration apart.
        columns: the headings of all columns but the first.
        cells: returns the cells of a configuration, from the lines that have its name.
    """

    page: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Callable[[Lines], tuple[str, ...]]


def _builds(lines: Lines) -> tuple[str, ...]:
    found = (lines.get(each) for each in BUILDS.values())
    return tuple(
        f"{each['seconds']:.0f} s, {each['size'] / 1e6:.1f} MB" if each else "" for each in found
    )


def _fp16(lines: Lines) -> tuple[str, ...]:
    """Return the noise of FP16 alone and of the file in each runtime, then the boxes each keeps."""
    alone = next(iter(lines.values()))
    found = [lines.get((each,)) for each in RUNTIMES.values()]
    return (
        _decibels(alone["alone"]),
        *(_decibels(each["file"]) if each else "" for each in found),
        f"{alone['kept_alone']:.1%}",
        *(f"{each['kept']:.1%}" if each else "" for each in found),
    )


def _decibels(heads: dict[str, float]) -> str:
    return f"{heads['class_logits']:.1f}, {heads['box_regression']:.1f}"


TABLES = {
    "engines": Table("tensorrt.md", ("precision", "batch"), tuple(BUILDS), _builds),
    "fp16": Table(
        "verification.md",
        ("target",),
        (
            *(f"{each}, dB" for each in ("FP16 alone", *RUNTIMES)),
            *(f"{each} keeps" for each in ("FP16 alone", *RUNTIMES)),
        ),
        _fp16,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the lines that the tests wrote, keep the last of each kind, and replace the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=TABLES)
    parser.add_argument("files", nargs="+", type=argparse.FileType(encoding="utf-8"))
    options = parser.parse_args(arguments)
    kind, table = options.kind, TABLES[options.kind]
    found: dict[str, Lines] = {}
    for file in options.files:
        for line in map(json.loads, file):
            key = tuple(line[field] for field in table.key)
            found.setdefault(line["name"], {})[key] = line
    rows = [(name, *table.cells(lines)) for name, lines in sorted(found.items())]
    document = DOCS / table.page
    begin, end = f"<!-- {kind}-table -->\n", f"<!-- /{kind}-table -->"
    before, rest = document.read_text("utf-8").split(begin)
    _, after = rest.split(end)
    text = markdown_table(("configuration", *table.columns), rows)
    write_atomically(document, f"{before}{begin}{text.rstrip()}\n{end}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
