"""A comparison for the terminal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from effdet_deploy.reports.verification import MARKS, cosine_text, decibels, render

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.diagnosis.layers import LayerReport
    from effdet_deploy.diagnosis.side_by_side import Examined, SideBySide
    from effdet_deploy.parity.breakdown import Breakdown, Count, Spread

_CLASSES = 10
"""Classes that are written out, those with most disagreement first; the JSON has them all."""
_PERCENT = 100


def render_comparison(result: SideBySide) -> RenderableType:
    """Return the summary of all candidates, then the details of each."""
    parts: list[RenderableType] = [_summary(result)]
    for each in result.examined:
        parts += _details(each)
    return Group(*parts)


def _summary(result: SideBySide) -> Table:
    title = f"against {Path(result.reference).name}, {len(result.pictures.names)} pictures"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=Text(title))
    table.add_column("candidate", overflow="fold")
    scored = any(each.scores for each in result.examined)
    for heading in ("", "matched", "missed", "extra", "boxes, px", "scores", *["mAP"] * scored):
        table.add_column(heading, justify="right", overflow="fold")
    for each in result.examined:
        mark, style = MARKS[each.comparison.report.status]
        cells = [*_summary_cells(each), *[map_text(each)] * scored]
        table.add_row(Text(Path(each.comparison.name).name), Text(mark, style), *map(Text, cells))
    return table


def _summary_cells(each: Examined) -> list[str]:
    detections = each.comparison.report.detections
    if detections is None:
        return [""] * 5
    share = detections.share
    return [
        "" if math.isnan(share) else f"{share:.2%}",
        str(len(detections.missed)),
        str(len(detections.extra)),
        *largest_differences(each),
    ]


def largest_differences(each: Examined) -> tuple[str, str]:
    """Return those of boxes, in pixels, and of scores, as text; dots where nothing was paired."""
    detections = each.comparison.report.detections
    if detections is None or not detections.matched:
        return "·", "·"
    return f"{each.breakdown.boxes.largest:.2g}", f"{each.breakdown.scores.largest:.1e}"


def map_text(each: Examined) -> str:
    """Return mAP in points and its difference with interval; empty without annotations."""
    if each.scores is None:
        return ""
    return f"{_PERCENT * each.scores.candidate:.2f} ({each.scores.difference})"


def _details(each: Examined) -> Iterable[RenderableType]:
    yield Text("")
    yield render(each.comparison.report, Path(each.comparison.name).name)
    for cause in each.causes:
        yield Text.assemble(("  ➜ ", "bold yellow"), cause)
    detections = each.comparison.report.detections
    if detections is not None and detections.matched:
        yield _spread_line("boxes, px", each.breakdown.boxes)
        yield _spread_line("scores", each.breakdown.scores)
    yield _count_table(each.breakdown, each.comparison.candidate)
    if each.layers is not None:
        yield _layer_table(each.layers)


def _spread_line(name: str, spread: Spread) -> Text:
    text = f"      {name}: mean {spread.mean:.2g}, 95% within {spread.percentile:.2g}"
    return Text(f"{text}, largest {spread.largest:.2g}", style="dim")


def _count_table(breakdown: Breakdown, spec: DetectorSpec) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("detections")
    for heading in ("reference", "here", "matched", "missed", "extra", "set aside"):
        table.add_column(heading, justify="right")
    for name, count in breakdown.sizes.items():
        table.add_row(Text(name), *_count_cells(count))
    table.add_section()
    for label, count in most_disagreed(breakdown)[:_CLASSES]:
        table.add_row(Text(class_name(spec, label)), *_count_cells(count))
    return table


def most_disagreed(breakdown: Breakdown) -> list[tuple[int, Count]]:
    """Return classes and their counts, the most missed and extra first, then the most frequent."""
    return sorted(
        breakdown.classes.items(),
        key=lambda item: (-(item[1].missed + item[1].extra), -item[1].reference, item[0]),
    )


def class_name(spec: DetectorSpec, label: int) -> str:
    """Return the name of a class index, or the index where the spec has no such class."""
    return spec.classes[label].name if 0 <= label < spec.num_classes else f"class {label}"


def _count_cells(count: Count) -> list[str]:
    cells = (count.reference, count.candidate, count.matched, count.missed, count.extra)
    return [str(each) if each else "·" for each in (*cells, count.set_aside)]


def _layer_table(layers: LayerReport) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=f"worst of {len(layers.layers)} layers")
    table.add_column("layer", overflow="fold")
    for heading in ("SNR dB", "cosine", "largest error"):
        table.add_column(heading, justify="right")
    for each in layers.worst:
        style = "bold red" if layers.first is not None and each.name == layers.first.name else ""
        table.add_row(
            Text(each.name, style),
            decibels(each.snr_db),
            cosine_text(each.errors.cosine),
            f"{each.errors.largest:.2e}",
        )
    return table
