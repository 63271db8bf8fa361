"""Charts of the benchmarks' documents that the package itself does not have."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy.reports.charts import (
    THEIRS,
    WIDTH,
    canvas,
    chart_style,
    name_rows,
    note,
    to_svg,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from effdet_deploy.reports.charts import Mark, Tips


@chart_style()
def share_chart(title: str, rows: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """Draw each row as one bar of several parts, in ``unit``; a legend names the parts."""
    names = list(dict.fromkeys(part for parts in rows.values() for part in parts))
    figure, axes = canvas(WIDTH, 90 + 32 * len(rows) + 20 * math.ceil(len(names) / 4))
    start = np.zeros(len(rows))
    tips: Tips = {}
    for name in names:
        values = np.array([parts.get(name, 0.0) for parts in rows.values()])
        drawn = axes.barh(range(len(rows)), values, 0.8, start, label=name)
        tips |= {bar: [f"{name}: {written(each)}"] for bar, each in zip(drawn, values, strict=True)}
        start += values
    for place, total in enumerate(start):
        note(axes, written(total), (total, place), (5, 0), va="center")
    name_rows(axes, list(rows), unit)
    axes.set_title(title)
    figure.legend(loc="outside lower left", ncols=4)
    return to_svg(figure, title, tips)


@chart_style()
def point_chart(title: str, x_label: str, y_label: str, points: Sequence[Mark]) -> str:
    """Draw numbered points with a legend; x begins at 0, y near the lowest point."""
    figure, axes = canvas(WIDTH, 360 + 18 * len(points))
    tips: Tips = {}
    for number, each in enumerate(points, 1):
        name = f"{number}  {each.name}: {written(each.x)}, {each.y:.2f}"
        (dot,) = axes.plot(each.x, each.y, "o", markersize=9, label=name)
        if not each.is_ours:
            dot.set_color(THEIRS)
        note(axes, str(number), (each.x, each.y), (7, 5))
        tips[dot] = [name]
    axes.margins(0.08, 0.15)
    axes.set_xlim(left=0)
    axes.grid(axis="y")
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    figure.legend(loc="outside lower left")
    return to_svg(figure, title, tips)
