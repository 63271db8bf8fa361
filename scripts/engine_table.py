"""Write the table of built engines into docs/tensorrt.md, which gives the two commands for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from effdet_deploy.files import write_atomically
from effdet_deploy.reports.benchmark import markdown_table

DOCUMENT = Path(__file__).parent.parent / "docs" / "tensorrt.md"
BEGIN, END = "<!-- engine-table -->\n", "<!-- /engine-table -->"
COLUMNS = {
    "FP32": ("fp32", "fixed"),
    "FP32, batch 1..4": ("fp32", "ranged"),
    "FP16": ("fp16", "fixed"),
    "FP16, batch 1..4": ("fp16", "ranged"),
    "INT8": ("int8", "fixed"),
}


def main(arguments: list[str]) -> int:
    """Read the builds that the tests wrote, keep the last of each kind, and replace the table."""
    lines = [line for each in arguments for line in Path(each).read_text("utf-8").splitlines()]
    builds = [json.loads(line) for line in lines]
    found = {(each["name"], each["precision"], each["batch"]): each for each in builds}
    rows = [
        (name, *(_cell(found.get((name, *key))) for key in COLUMNS.values()))
        for name in sorted({name for name, _, _ in found})
    ]
    before, rest = DOCUMENT.read_text("utf-8").split(BEGIN)
    _, after = rest.split(END)
    table = markdown_table(("configuration", *COLUMNS), rows)
    write_atomically(DOCUMENT, f"{before}{BEGIN}{table.rstrip()}\n{END}{after}")
    return 0


def _cell(build: dict[str, float] | None) -> str:
    return "" if build is None else f"{build['seconds']:.0f} s, {build['size'] / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
