"""A summary of the tables: one line for each claim, with the aim beside the measured value."""

from __future__ import annotations

from typing import Any

from effdet_deploy.benchmark import Timing, compare
from effdet_deploy.reports.benchmark import markdown_table

EAGER = "effdet eager"
FLOAT32 = ("ours, ONNX Runtime", "ours, OpenVINO FP32")
"""Our own float32 files, as their rows are named; the faster one counts."""
OPENVINO_INT8 = ("ours, OpenVINO INT8", "ours, OpenVINO INT8, the rest BF16")
NAIVE = ("effdet naive ONNX, ONNX Runtime", "effdet naive ONNX, OpenVINO FP32")
NMS_OPERATOR_ENDING = ", --nms onnx"
"""How the names of our rows end whose NMS is ONNX's own operator, not static steps."""
ALL_CANDIDATES_ENDING = ", 5000 candidates"
"""How the names of our rows end that pass as many boxes to NMS as effdet does."""
LARGER_BATCH = 8
"""The batch whose time for an image is compared with that of batch 1."""

Line = tuple[str, str, str]


def headline(document: dict[str, Any]) -> str:
    """Return a heading and the claims about the first variant, as far as they were measured."""
    table = claims(document)
    return f"## In short: {document['tables'][0]['variant'].upper()}\n\n{table}" if table else ""


def claims(document: dict[str, Any]) -> str:
    """Return the table of the claims about the first variant, as far as they were measured."""
    tables = document["tables"]
    if not tables:
        return ""
    same = ("variant", "image_size", "threads")
    found = {
        (each["part"], each["batch"]): each
        for each in tables
        if all(each[name] == tables[0][name] for name in same)
    }
    whole, network = found.get(("end to end", 1)), found.get(("network", 1))
    many, startup = found.get(("end to end", LARGER_BATCH)), document.get("startup")
    lines: list[Line] = []
    if whole:
        lines += _whole_lines(_Timings(whole))
        if many:
            lines += [
                (
                    f"{name}: time for an image at batch {LARGER_BATCH}, against batch 1",
                    f"{cost['median']:.2f}x ({cost['low']:.2f}-{cost['high']:.2f})",
                    "at most 1.1x",
                )
                for name, cost in many["batch_cost"].items()
            ]
        lines += [
            (
                f"{name}: preprocess, decode, selection and NMS together",
                f"{share['median']:.1%} of the time ({share['low']:.1%} to {share['high']:.1%})",
                "at most 15%" if name.endswith(ALL_CANDIDATES_ENDING) else "at most 10%",
            )
            for name, share in whole["outside"].items()
        ]
    if network:
        lines += _network_lines(_Timings(network))
    if startup:
        ratio = startup["ours_is_sooner_by"]
        low, high = ratio["interval"]
        measured = f"{ratio['median']:.1f}x ({low:.1f}-{high:.1f})"
        lines.append(
            ("ours, ONNX Runtime: import to first detection, against effdet eager", measured, "6x")
        )
    return markdown_table(("", "measured", "aim"), lines) if lines else ""


class _Timings(dict[str, Timing]):
    """The timings of a table, by the names of its rows."""

    def __init__(self, table: dict[str, Any]) -> None:
        for row in table["rows"]:
            self[row["name"]] = Timing(tuple(each / 1e3 for each in row["samples_ms"]))

    def best(self, names: tuple[str, ...]) -> str | None:
        known = [name for name in names if name in self]
        return min(known, key=lambda name: self[name].median, default=None)

    def line(self, ours: str, theirs: str, aim: str, *, shown_as: str = "") -> list[Line]:
        """Return the claim that ``ours`` is faster, if ``theirs`` was measured.

        ``shown_as`` is the name for ``ours`` in the claim, if that differs from its row's name.
        """
        if theirs not in self:
            return []
        ratio = compare(self[ours], self[theirs])
        other = (
            f"our best FP32 ({theirs})" if theirs in FLOAT32 and ours in OPENVINO_INT8 else theirs
        )
        return [(f"{shown_as or ours} against {other}", f"{ratio}, {ratio.verdict}", aim)]


def _whole_lines(timings: _Timings) -> list[Line]:
    lines: list[Line] = []
    best, int8 = timings.best(FLOAT32), timings.best(OPENVINO_INT8)
    if best:
        for theirs, aim in ((EAGER, "4.5x"), *((each, "2.5x") for each in NAIVE)):
            lines += timings.line(best, theirs, aim)
        if int8:
            lines += timings.line(int8, best, "1.15x") + timings.line(int8, EAGER, "7x")
    many = timings.best(tuple(each + ALL_CANDIDATES_ENDING for each in FLOAT32))
    if many:
        for theirs, aim in ((EAGER, "4.5x"), *((each, "2.5x") for each in NAIVE)):
            lines += timings.line(many, theirs, aim)
    for name in timings:
        if name.endswith(NMS_OPERATOR_ENDING):
            lines += timings.line(name, name.removesuffix(NMS_OPERATOR_ENDING), "")
    return lines


def _network_lines(timings: _Timings) -> list[Line]:
    best = timings.best(FLOAT32)
    if best is None:
        return []
    rivals = [name for name in timings if name.startswith("effdet") and "BF16" not in name]
    return [
        line
        for rival in sorted(rivals, key=lambda name: timings[name].median)
        for line in timings.line(best, rival, "faster", shown_as=f"network alone, {best}")
    ]
