"""What the tables come to: one line for each claim, with the aim beside it."""

from __future__ import annotations

from typing import Any

from effdet_deploy.benchmark import Ratio, Timing, compare
from effdet_deploy.reports.benchmark import markdown_table

EAGER = "effdet eager"
FLOAT32 = ("ours, ONNX Runtime", "ours, OpenVINO FP32")
"""Ours in float32, of which the faster one counts."""
INT8 = ("ours, OpenVINO INT8", "ours, OpenVINO INT8, the rest BF16")
NAIVE = ("effdet naive ONNX, ONNX Runtime", "effdet naive ONNX, OpenVINO FP32")
NMS_OPERATOR_ENDING = ", --nms onnx"
"""Ends the names of ours with ONNX's own NMS in place of static steps."""
LARGER = 8

Line = tuple[str, str, str]


def headline(document: dict[str, Any]) -> str:
    """Return the claims about the first variant, as far as they were measured."""
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
    lines: list[Line] = []
    if whole:
        lines += _float32_lines(whole) + _int8_lines(whole)
        lines += _nms_lines(whole)
        lines += _batch_lines(found.get(("end to end", LARGER)))
        lines += _share_lines(whole)
    if network:
        lines += _network_lines(network)
    lines += _startup_lines(document.get("startup"))
    table = markdown_table(("", "measured", "aim"), lines)
    return f"## In short: {tables[0]['variant'].upper()}\n\n{table}" if lines else ""


def _samples(table: dict[str, Any]) -> dict[str, Timing]:
    return {
        row["name"]: Timing(tuple(each / 1e3 for each in row["samples_ms"]))
        for row in table["rows"]
    }


def _best(timings: dict[str, Timing], names: tuple[str, ...]) -> str | None:
    known = [name for name in names if name in timings]
    return min(known, key=lambda name: timings[name].median, default=None)


def _against(timings: dict[str, Timing], ours: str, theirs: str) -> Ratio | None:
    return compare(timings[ours], timings[theirs]) if theirs in timings else None


def _line(ours: str, theirs: str, ratio: Ratio | None, aim: str) -> list[Line]:
    if ratio is None:
        return []
    return [(f"{ours} against {theirs}", f"{ratio}, {ratio.verdict}", aim)]


def _float32_lines(table: dict[str, Any]) -> list[Line]:
    timings = _samples(table)
    best = _best(timings, FLOAT32)
    if best is None:
        return []
    lines = _line(best, EAGER, _against(timings, best, EAGER), "4.5x")
    for peer in NAIVE:
        lines += _line(best, peer, _against(timings, best, peer), "2.5x")
    return lines


def _int8_lines(table: dict[str, Any]) -> list[Line]:
    timings = _samples(table)
    best, int8 = _best(timings, FLOAT32), _best(timings, INT8)
    if best is None or int8 is None:
        return []
    lines = _line(int8, f"our best FP32 ({best})", _against(timings, int8, best), "1.15x")
    return lines + _line(int8, EAGER, _against(timings, int8, EAGER), "7x")


def _nms_lines(table: dict[str, Any]) -> list[Line]:
    timings = _samples(table)
    lines: list[Line] = []
    for name in timings:
        if name.endswith(NMS_OPERATOR_ENDING):
            plain = name.removesuffix(NMS_OPERATOR_ENDING)
            lines += _line(name, plain, _against(timings, name, plain), "")
    return lines


def _batch_lines(many: dict[str, Any] | None) -> list[Line]:
    if many is None:
        return []
    return [
        (
            f"{name}: cost of an image at batch {many['batch']} over that at batch 1",
            f"{cost['median']:.2f}x ({cost['low']:.2f}-{cost['high']:.2f})",
            "at most 1.1x",
        )
        for name, cost in many["batch_cost"].items()
    ]


def _share_lines(table: dict[str, Any]) -> list[Line]:
    return [
        (
            f"{name}: preprocess, decode, selection and NMS together",
            f"{share['median']:.1%} of the time ({share['low']:.1%} to {share['high']:.1%})",
            "at most 10%",
        )
        for name, share in table["outside"].items()
    ]


def _network_lines(table: dict[str, Any]) -> list[Line]:
    timings = _samples(table)
    best = _best(timings, FLOAT32)
    if best is None:
        return []
    peers = [name for name in timings if name.startswith("effdet") and "BF16" not in name]
    return [
        line
        for peer in sorted(peers, key=lambda name: timings[name].median)
        for line in _line(f"network alone, {best}", peer, _against(timings, best, peer), "faster")
    ]


def _startup_lines(startup: dict[str, Any] | None) -> list[Line]:
    if not startup:
        return []
    ratio = startup["ours_is_sooner_by"]
    low, high = ratio["interval"]
    measured = f"{ratio['median']:.1f}x ({low:.1f}-{high:.1f})"
    return [("import to first detection, against effdet", measured, "6x")]
