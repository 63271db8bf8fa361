"""The charts of a comparison's HTML page."""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy.reports.charts import COLORS, canvas, chart_style, note, to_svg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from effdet_deploy.diagnosis.locating import LayerParity, LayerReport
    from effdet_deploy.reports.charts import Tips

_LOWEST = -8
"""The lowest decade of relative error in the depth chart; smaller errors are drawn there."""
_MAX_POINTS = 2500
"""The most points of a kind in a scatter chart: more would only make the page larger."""
_BINS_PER_DECADE = 4
_ZERO_BAR = -1.25
"""Where the bar for differences of zero begins, in decades from the chart's first decade."""
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_NAMED_SHARE = 0.06
"""A part of the network that has more than this share of all layers has room for its name."""


@chart_style()
def depth_chart(report: LayerReport) -> str:
    """Draw the relative error of every layer, in the order of computation."""
    figure, axes = canvas(1080, 320)
    errors = [min(1.0, max(_LOWEST, -each.snr_db / 20)) for each in report.layers]
    top = max(0, math.ceil(max(errors, default=0.0)))
    _shade_parts(axes, report.layers)
    axes.set(xlim=(-0.5, len(errors) - 0.5), ylim=(_LOWEST, top), xticks=[])
    decades = range(_LOWEST, top + 1)
    axes.set_yticks(decades, ["exact", *map(_power, decades[1:])])
    axes.grid(axis="y")
    limit = -report.least_snr_db / 20
    axes.axhline(limit, color=COLORS["open"], linestyle="dashed", linewidth=1)
    edge = (len(errors) - 0.5, limit)
    note(axes, "allowed", edge, (-6, 5), ha="right", color=COLORS["open"])
    (dots,) = axes.plot(errors, "o", color=COLORS["accent"], markersize=5, clip_on=False)
    tips: Tips = {dots: [f"{each.name}: {each.snr_db:.1f} dB" for each in report.layers]}
    for place, each in enumerate(report.layers):
        if each is not report.first:
            continue
        at = (place, errors[place])
        axes.plot(*at, "o", color=COLORS["missed"], markersize=11, clip_on=False)
        side, shift = ("left", 10) if place < len(errors) / 2 else ("right", -10)
        note(axes, each.name, at, (shift, -17), ha=side, color=COLORS["missed"], weight="bold")
    return to_svg(figure, "relative error along the depth of the network", tips, in_page=True)


def _shade_parts(axes: Axes, layers: Sequence[LayerParity]) -> None:
    """Shade every other part of the network, and name the parts that have room for a name."""
    start = 0
    parts = groupby(layers, key=lambda each: each.name.partition(".")[0])
    for number, (part, members) in enumerate(parts):
        end = start + len(list(members))
        if number % 2 == 0:
            axes.axvspan(start - 0.5, end - 0.5, color=COLORS["band"], linewidth=0, zorder=0)
        if end - start > _NAMED_SHARE * len(layers):
            top = ((start + end - 1) / 2, 1)
            look = {"ha": "center", "color": COLORS["ink"], "weight": "bold"}
            note(axes, part, top, (0, 6), xycoords=("data", "axes fraction"), **look)
        start = end


@chart_style()
def score_scatter(
    pairs: NDArray[np.float64], missed: NDArray[np.float64], extra: NDArray[np.float64]
) -> str:
    """Draw scores of matched pairs ``[n,2]`` (reference, candidate), and of unpaired detections.

    A detection that only the reference or only the candidate has is drawn on the axis of its
    scores.
    """
    figure, axes = canvas(380, 380)
    axes.plot([0, 1], [0, 1], color=COLORS["soft"], linestyle="dotted", linewidth=1)
    points = pairs[:: max(1, math.ceil(len(pairs) / _MAX_POINTS))]
    zeros = np.zeros(_MAX_POINTS)
    missed, extra = missed[:_MAX_POINTS], extra[:_MAX_POINTS]
    for x, y, color, opacity in (
        (points[:, 0], points[:, 1], COLORS["both"], 0.45),
        (missed, zeros[: len(missed)], COLORS["missed"], 1),
        (zeros[: len(extra)], extra, COLORS["extra"], 1),
    ):
        axes.plot(
            x, y, "o", color=color, alpha=opacity, markersize=6, markeredgewidth=0, clip_on=False
        )
    quarters = [each / 4 for each in range(5)]
    axes.set_xticks(quarters, [f"{each:g}" for each in quarters])
    axes.set_yticks(quarters, [f"{each:g}" for each in quarters])
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="reference score", ylabel="candidate score")
    axes.grid()
    label = "scores of the candidate over those of the reference"
    return to_svg(figure, label, in_page=True)


@chart_style()
def log_histogram(values: NDArray[np.float64], label: str) -> str:
    """Draw how many values (0 or above) fall into every part of a decade; zeros are separate."""
    figure, axes = canvas(380, 190)
    if not len(values):
        axes.set_axis_off()
        axes.text(0.5, 0.5, f"{label}: no pairs", ha="center", transform=axes.transAxes)
        return to_svg(figure, label, in_page=True)
    finite = values[np.isfinite(values)]
    positive = finite[finite > 0]
    low, high = -8, 0
    if len(positive):
        high = math.ceil(math.log10(float(positive.max())) + 1e-9)
        # The chart has at least two decades, so that bars are not too wide.
        low = min(math.floor(math.log10(float(np.quantile(positive, 0.005)))), high - 2)
    edges = np.linspace(low, high, (high - low) * _BINS_PER_DECADE + 1)
    counts, _ = np.histogram(np.log10(positive), edges)
    heights = [len(finite) - len(positive), *counts.tolist()]
    width = 1 / _BINS_PER_DECADE
    bars = axes.bar(
        [low + _ZERO_BAR, *edges[:-1]], heights, 0.92 * width, align="edge", color=COLORS["accent"]
    )
    ticks = range(low, high + 1, 1 if high - low <= 6 else 2)
    axes.set_xticks([low + _ZERO_BAR + width / 2, *ticks], ["0", *map(_power, ticks)])
    highest = max(*heights, 1)
    axes.set(ylim=(0, highest), yticks=[0, highest], xlabel=label)
    axes.grid(axis="y")
    tips: Tips = {bar: [str(height)] for bar, height in zip(bars, heights, strict=True)}
    return to_svg(figure, f"histogram: {label}", tips, in_page=True)


def _power(decade: int) -> str:
    return f"10{str(decade).translate(_SUPERSCRIPTS)}"
