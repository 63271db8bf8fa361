"""Charts as inline SVG: no script, no font and no file beside the page."""

from __future__ import annotations

import math
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy.reports.svg import Frame, drawing, upright

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from effdet_deploy.diagnosis.layers import LayerParity, LayerReport

_LOWEST = -8
"""Decade of relative error that the depth chart begins at; what is smaller stands on its floor."""
_MAX_POINTS = 2500
_BINS_PER_DECADE = 4
_ZERO_BAR = -1.25
"""Decades before the first one at which the bar of values without any difference begins."""
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_PART_LABEL_WIDTH = 60


def _power(decade: int) -> str:
    return f"10{str(decade).translate(_SUPERSCRIPTS)}"


def depth_chart(report: LayerReport) -> str:
    """Draw the relative error of every layer in the order of computation, parts shaded."""
    width, height = 1080, 320
    errors = [_relative_error(each) for each in report.layers]
    top = max(0.0, math.ceil(max(errors, default=0.0)))
    frame = Frame(58, 34, width - 14, height - 26, (-0.5, len(errors) - 0.5), (_LOWEST, top))
    ticks = [(decade, _power(decade)) for decade in range(_LOWEST + 1, int(top) + 1)]
    body = _parts(report.layers, frame) + frame.grid([(_LOWEST, "exact"), *ticks])
    limit = frame.up(-report.least_snr_db / 20)
    body += (
        f'<line class="limit" x1="{frame.left}" x2="{frame.right}" y1="{limit:.1f}" '
        f'y2="{limit:.1f}"/><text class="limit" x="{frame.right}" y="{limit - 6:.1f}" '
        'text-anchor="end">allowed</text>'
    )
    body += "".join(
        _layer_dot(each, frame.across(index), frame.up(error), is_first=each is report.first)
        for index, (each, error) in enumerate(zip(report.layers, errors, strict=True))
    )
    return drawing(width, height, "relative error along the depth of the network", body)


def _relative_error(layer: LayerParity) -> float:
    """Return the decade of the RMS error over the RMS of the reference."""
    return min(1.0, max(float(_LOWEST), -layer.snr_db / 20))


def _layer_dot(layer: LayerParity, x: float, y: float, *, is_first: bool) -> str:
    title = f"<title>{escape(layer.name)}: {layer.snr_db:.1f} dB</title>"
    if not is_first:
        return f'<circle class="layer" cx="{x:.1f}" cy="{y:.1f}" r="2.4">{title}</circle>'
    anchor, shift = ("start", 11) if x < 540 else ("end", -11)
    return (
        f'<circle class="first" cx="{x:.1f}" cy="{y:.1f}" r="5.5">{title}</circle>'
        f'<text class="first" x="{x + shift:.1f}" y="{y + 22:.1f}" text-anchor="{anchor}">'
        f"{escape(layer.name)}</text>"
    )


def _parts(layers: Sequence[LayerParity], frame: Frame) -> str:
    """Shade every other part of the network, and name the parts that have room for a name."""
    drawn = ""
    start = 0
    parts = groupby(layers, key=lambda each: each.name.partition(".")[0])
    for number, (part, members) in enumerate(parts):
        end = start + len(list(members))
        left, right = frame.across(start - 0.5), frame.across(end - 0.5)
        if number % 2 == 0:
            drawn += (
                f'<rect class="band" x="{left:.1f}" y="{frame.top}" width="{right - left:.1f}" '
                f'height="{frame.bottom - frame.top}"/>'
            )
        if right - left > _PART_LABEL_WIDTH:
            middle = (left + right) / 2
            drawn += (
                f'<text class="part" x="{middle:.1f}" y="{frame.top - 12}" '
                f'text-anchor="middle">{escape(part)}</text>'
            )
        start = end
    return drawn


def score_scatter(
    pairs: NDArray[np.float64], missed: NDArray[np.float64], extra: NDArray[np.float64]
) -> str:
    """Draw scores of matched pairs ``[n,2]`` (reference, candidate), and those of strays.

    What only one side has stands on that side's axis.
    """
    width = height = 380
    frame = Frame(50, 14, width - 14, height - 46, (0, 1), (0, 1))
    marks = [(each / 4, f"{each / 4:g}") for each in range(5)]
    body = frame.grid(marks) + frame.below(marks)
    body += (
        f'<line class="diagonal" x1="{frame.across(0)}" y1="{frame.up(0)}" '
        f'x2="{frame.across(1)}" y2="{frame.up(1)}"/>'
    )
    points = pairs[:: max(1, math.ceil(len(pairs) / _MAX_POINTS))]
    for kind, places in (
        ("pair", points.tolist()),
        ("missed", [(score, 0.0) for score in missed.tolist()[:_MAX_POINTS]]),
        ("extra", [(0.0, score) for score in extra.tolist()[:_MAX_POINTS]]),
    ):
        body += "".join(
            f'<circle class="{kind}" cx="{frame.across(x):.1f}" cy="{frame.up(y):.1f}" r="3"/>'
            for x, y in places
            if math.isfinite(x + y)
        )
    middle = (frame.left + frame.right) / 2
    body += f'<text x="{middle}" y="{height - 8}" text-anchor="middle">reference score</text>'
    body += upright(14, (frame.top + frame.bottom) / 2, "candidate score")
    return drawing(width, height, "scores of the candidate over those of the reference", body)


def log_histogram(values: NDArray[np.float64], label: str) -> str:
    """Draw how many values, 0 or above, fall into each part of a decade; zeros stand apart."""
    width, height = 380, 190
    if not len(values):
        place = f'x="{width / 2}" y="{height / 2}" text-anchor="middle"'
        return drawing(width, height, label, f"<text {place}>{escape(label)}: no pairs</text>")
    finite = values[np.isfinite(values)]
    positive = finite[finite > 0]
    low, high = _decades(positive)
    edges = np.linspace(low, high, (high - low) * _BINS_PER_DECADE + 1)
    counts, _ = np.histogram(np.log10(positive), edges)
    exact = len(finite) - len(positive)
    step = 1 / _BINS_PER_DECADE
    highest = max(exact, int(counts.max(initial=0)), 1)
    frame = Frame(50, 12, width - 14, height - 46, (low + _ZERO_BAR - step, high), (0, highest))
    body = frame.grid([(0, "0"), (highest, str(highest))])
    labelled = 1 if high - low <= 6 else 2
    ticks = [(each, _power(each)) for each in range(low, high + 1, labelled)]
    body += frame.below([(low + _ZERO_BAR + step / 2, "0"), *ticks])
    bars = [(low + _ZERO_BAR, exact), *zip(edges.tolist(), counts.tolist(), strict=False)]
    for left, count in bars:
        start, end, top = frame.across(left), frame.across(left + step), frame.up(count)
        if count:
            body += (
                f'<rect class="bar" x="{start + 0.5:.1f}" y="{top:.1f}" '
                f'width="{end - start - 1:.1f}" height="{frame.bottom - top:.1f}">'
                f"<title>{count}</title></rect>"
            )
    middle = (frame.left + frame.right) / 2
    body += f'<text x="{middle}" y="{height - 8}" text-anchor="middle">{escape(label)}</text>'
    return drawing(width, height, f"histogram: {label}", body)


def _decades(positive: NDArray[np.float64]) -> tuple[int, int]:
    """Return the decades that hold all values; two at least, so that bars do not grow fat."""
    if not len(positive):
        return -8, 0
    high = math.ceil(math.log10(float(positive.max())) + 1e-9)
    low = math.floor(math.log10(float(np.quantile(positive, 0.005))))
    return min(low, high - 2), high
