"""Write the results of ``candidates.py`` as a section of the document."""

from __future__ import annotations

from typing import Any

from headline import claims
from sections import disturbance, run_lines, with_section

from effdet_deploy.reports.benchmark import markdown_table

TITLE, NEXT = "## Cost of candidates and rows", "## From files to boxes"
TEXT = """The table shows the share of D0's time at 512x512, on one thread, that preprocessing,
selection, decoding and NMS take: 1 minus the time of the network alone divided by that of the
whole graph, measured in turns. Parentheses give the middle half of the turns, in which noise can
make a share negative. Candidates are the boxes that enter NMS, and rows the detections that come
out. effdet's own post-processing has 5000 candidates and 100 rows. Above 1000 candidates the graph
has a greedy NMS, which is exact however boxes overlap.
"""

ALL_CANDIDATES_TEXT = """The next table compares our D0 with effdet's own ways to run the
network, all timed in one run, end to end, at batch 1. Our D0 has 1000 candidates unless the line
says 5000. With `--nms onnx` its NMS is ONNX's own operator NonMaxSuppression.
"""


def candidates_section(document: dict[str, Any] | None) -> list[str]:
    """Return the section, or nothing if nothing was measured."""
    if document is None:
        return []
    shares = document["shares"]
    columns = list(dict.fromkeys((each["rows"], each["engine"]) for each in shares))
    cells: dict[int, dict[tuple[int, str], str]] = {}
    for each in shares:
        text = f"{each['median']:.1%} ({each['low']:.1%} to {each['high']:.1%})"
        cells.setdefault(each["candidates"], {})[each["rows"], each["engine"]] = text
    table = markdown_table(
        ("candidates", *(f"{rows} rows, {runtime}" for rows, runtime in columns)),
        [
            (str(count), *(found.get(column, "") for column in columns))
            for count, found in cells.items()
        ],
    )
    command = f"Command: `python benchmarks/candidates.py {document['command']}`\n"
    parts = [f"{TITLE}\n", TEXT, command, table, f"{disturbance(document['load'])}\n"]
    if timed := document.get("latency"):
        quiet = disturbance(timed["tables"][0]["load"])
        parts += [ALL_CANDIDATES_TEXT, *run_lines(timed), claims(timed), f"{quiet}\n"]
    return parts


def filled(page: str, document: dict[str, Any]) -> str:
    """Return the page of all benchmarks with this section put in or replaced."""
    return with_section(page, TITLE, "\n".join(candidates_section(document)), NEXT)
