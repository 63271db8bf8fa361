"""The report of a comparison: all candidates side by side, and details by class, size and layer."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rich.console import Group

from effdet_deploy.reports.columns import ABSENT, Column, Finding, Table, doubts
from effdet_deploy.reports.text import show
from effdet_deploy.reports.verification import cosine, decibels, render

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.diagnosis.comparing_files import Examined, SideBySide
    from effdet_deploy.diagnosis.locating import LayerParity, LayerReport
    from effdet_deploy.parity.breakdown import Breakdown, Count
    from effdet_deploy.parity.verdict import DetectionParity

    Counted: TypeAlias = tuple[str, Count]

_CLASSES = 10
"""How many classes a terminal shows, those that differ most; the JSON lists all classes."""
_PERCENT = 100


def file_name(each: Examined) -> str:
    """Return the name of a candidate."""
    return Path(each.comparison.name).name


def class_name(spec: DetectorSpec, label: int) -> str:
    """Return the name of a class index, or the index if the spec has no such class."""
    return spec.classes[label].name if 0 <= label < spec.num_classes else f"class {label}"


def _detected(say: Callable[[DetectionParity, Breakdown], str]) -> Callable[[Examined], str]:
    """Return a function that makes a cell, which is empty if detections were not compared."""

    def cell(each: Examined) -> str:
        detections = each.comparison.report.detections
        return "" if detections is None else say(detections, each.breakdown)

    return cell


def _count(field: str, row: Counted) -> str:
    return str(getattr(row[1], field) or ABSENT)


SUMMARY: tuple[Column[Examined], ...] = (
    Column("candidate", file_name, "words"),
    Column("", lambda each: each.comparison.report.status, "verdict"),
    Column("precision", lambda each: each.comparison.report.precision, page_only=True),
    Column("matched", _detected(lambda d, _: "" if math.isnan(d.share) else f"{d.share:.2%}")),
    Column("missed", _detected(lambda d, _: str(len(d.missed)))),
    Column("extra", _detected(lambda d, _: str(len(d.extra)))),
    Column(
        "box error, px",
        _detected(lambda d, b: f"{b.boxes.largest:.2g}" if d.matched else ABSENT),
    ),
    Column(
        "score error", _detected(lambda d, b: f"{b.scores.largest:.1e}" if d.matched else ABSENT)
    ),
)
MAP: Column[Examined] = Column(
    "mAP",
    lambda each: (
        f"{_PERCENT * each.scores.candidate:.2f} ({each.scores.difference})" if each.scores else ""
    ),
)
COUNTS: tuple[Column[Counted], ...] = (
    Column("detections", lambda row: row[0], "words"),
    Column("reference", partial(_count, "reference")),
    Column("candidate", partial(_count, "candidate")),
    *(
        Column(name.replace("_", " "), partial(_count, name))
        for name in (*("matched", "missed", "extra", "set_aside"),)
    ),
)
LAYERS: tuple[Column[LayerParity], ...] = (
    Column("layer", lambda each: each.name, "code"),
    Column("SNR dB", lambda each: decibels(each.errors)),
    Column("cosine", lambda each: cosine(each.errors)),
    Column("largest error", lambda each: f"{each.errors.largest:.2e}"),
)


def render_comparison(result: SideBySide) -> RenderableType:
    """Return a comparison for a terminal: a summary of all candidates, then their details."""
    parts = [show([summary(result), *doubts(result.doubts)])]
    for each in result.examined:
        parts += [show([""]), render(each.comparison.report, file_name(each))]
        parts.append(show([*causes(each), *spreads(each), counts(each, _CLASSES)]))
        if each.layers is not None:
            parts.append(show([worst_layers(each.layers)]))
    for each in result.examined:
        if each.bisection is not None:
            parts.append(show([f"{file_name(each)}, bisected", *each.bisection.lines()]))
    return Group(*parts)


def summary(result: SideBySide) -> Table[Examined]:
    """Return a table with one row per candidate."""
    scored = any(each.scores for each in result.examined)
    title = f"against {Path(result.reference).name}, {len(result.pictures.names)} pictures"
    return Table((*SUMMARY, MAP) if scored else SUMMARY, [result.examined], title)


def causes(each: Examined) -> list[Finding]:
    """Return the causes of a candidate's differences."""
    return [Finding(cause, "cause") for cause in each.causes]


def spreads(each: Examined) -> list[Finding]:
    """Return by how much the boxes and the scores of matched pairs differ."""
    detections = each.comparison.report.detections
    if detections is None or not detections.matched:
        return []
    return [
        Finding(
            f"{name}: mean {spread.mean:.2g}, 95% within {spread.percentile:.2g}, "
            f"largest {spread.largest:.2g}",
            "detail",
        )
        for name, spread in (
            ("box errors, px", each.breakdown.boxes),
            ("score errors", each.breakdown.scores),
        )
    ]


def counts(each: Examined, classes: int) -> Table[Counted]:
    """Return counts by size, and by class for at most ``classes`` classes, the most different."""
    ordered = sorted(
        each.breakdown.classes.items(),
        key=lambda item: (-(item[1].missed + item[1].extra), -item[1].reference, item[0]),
    )
    spec = each.comparison.candidate
    named = [(class_name(spec, label), count) for label, count in ordered[:classes]]
    more = len(ordered) - classes
    note = f"{more} more classes are not shown" if more > 0 else ""
    return Table(COUNTS, [list(each.breakdown.sizes.items()), named], note=note)


def worst_layers(layers: LayerReport) -> Table[LayerParity]:
    """Return the layers with most noise; the first layer that differs is highlighted."""
    first = layers.first.name if layers.first else None
    return Table(
        LAYERS,
        [layers.worst],
        f"worst of {len(layers.layers)} layers",
        tone=lambda each: "failed" if each.name == first else "",
    )
