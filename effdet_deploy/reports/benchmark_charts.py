"""Measurements as charts, each an SVG file of its own: bars, lines, points and shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from effdet_deploy.reports.svg import Frame, drawing, standalone, upright

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_COLOURS = (
    *("#2f5fd0", "#e08a00", "#1f9d6b", "#d13b4f", "#7b4fc9", "#0e8fa8"),
    *("#a3641f", "#5b6878", "#c24fa0", "#86a61c"),
)
_OURS, _THEIRS = "#2f5fd0", "#a9b4c2"
_STYLE = (
    'text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:#4a5665}'
    ".title{font-size:14px;font-weight:600;fill:#16202c}.grid{stroke:#dfe5ec}"
    "polyline{fill:none;stroke-width:2}"
)
_WIDTH = 760
_LETTER = 6.6
"""Drawing units of a letter, on average."""
_ROW = 26
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Mark:
    """A named value: a bar of length ``x``, or a point at ``x`` and ``y``; ours are in colour."""

    name: str
    x: float
    y: float = 0.0
    is_ours: bool = False

    @property
    def colour(self) -> str:
        """What it is drawn in."""
        return _OURS if self.is_ours else _THEIRS


@dataclass(frozen=True)
class Series:
    """A named line through points ``(x, y)``."""

    name: str
    points: tuple[tuple[float, float], ...]


def bar_chart(title: str, unit: str, bars: Sequence[Mark]) -> str:
    """Draw horizontal bars in the order given, each with its name and its value."""
    left = _room(each.name for each in bars)
    height = 64 + _ROW * len(bars)
    frame = Frame(left, 36, _WIDTH - 60, height - 28, (0, max(each.x for each in bars)), (0, 1))
    body = _title(title)
    for index, bar in enumerate(bars):
        top = 36 + index * _ROW
        length = frame.across(bar.x) - frame.left
        body += (
            f'<text x="{frame.left - 8:.1f}" y="{top + 16}" text-anchor="end">'
            f"{escape(bar.name)}</text>"
            f'<rect x="{frame.left:.1f}" y="{top + 3}" width="{length:.1f}" height="{_ROW - 8}" '
            f'fill="{bar.colour}"/>'
            f'<text x="{frame.left + length + 6:.1f}" y="{top + 16}">{_number(bar.x)}</text>'
        )
    body += f'<text x="{frame.left:.1f}" y="{height - 8}">{escape(unit)}</text>'
    return _file(height, title, body)


def line_chart(title: str, x_label: str, y_label: str, series: Sequence[Series]) -> str:
    """Draw lines over numbers, each of which has the same room: 1, 2, 4, 8 stand evenly."""
    numbers = sorted({x for line in series for x, _ in line.points})
    places = {x: float(place) for place, x in enumerate(numbers)}
    highest = max(y for line in series for _, y in line.points)
    ticks = _ticks(0, highest)
    height = 300 + 18 * len(series)
    span = (-0.3, max(len(numbers) - 1, 0) + 0.3)
    frame = Frame(64, 36, _WIDTH - 16, 258, span, (0, ticks[-1][0]))
    body = _title(title) + frame.grid(ticks) + frame.below([(places[x], f"{x:g}") for x in numbers])
    body += _labels(frame, x_label, y_label)
    for index, line in enumerate(series):
        colour = _COLOURS[index % len(_COLOURS)]
        spots = [(frame.across(places[x]), frame.up(y)) for x, y in sorted(line.points)]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        body += f'<polyline points="{joined}" stroke="{colour}"/>'
        body += "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in spots
        )
        body += _key(64, 300 + 18 * index, colour, line.name)
    return _file(height, title, body)


def point_chart(title: str, x_label: str, y_label: str, points: Sequence[Mark]) -> str:
    """Draw numbered points, named below; x begins at 0, y at what the lowest point needs."""
    low, high = min(each.y for each in points), max(each.y for each in points)
    margin = 0.15 * ((high - low) or abs(high) or 1.0)
    rows, columns = _ticks(low - margin, high + margin), _ticks(0, max(each.x for each in points))
    height = 380 + 18 * len(points)
    frame = Frame(64, 36, _WIDTH - 30, 330, (0, columns[-1][0]), (rows[0][0], rows[-1][0]))
    body = _title(title) + frame.grid(rows) + frame.below(columns)
    body += _labels(frame, x_label, y_label)
    for index, each in enumerate(points):
        x, y = frame.across(each.x), frame.up(each.y)
        colour = _COLOURS[index % len(_COLOURS)] if each.is_ours else _THEIRS
        body += (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'
            f'<text x="{x + 8:.1f}" y="{y - 5:.1f}">{index + 1}</text>'
        )
        name = f"{index + 1}  {each.name}: {_number(each.x)}, {each.y:.2f}"
        body += _key(64, 380 + 18 * index, colour, name)
    return _file(height, title, body)


def share_chart(title: str, rows: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """Draw each row as one bar in parts, in ``unit``; the parts are named below."""
    names = list(dict.fromkeys(part for parts in rows.values() for part in parts))
    colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
    left = _room(rows)
    longest = max(sum(parts.values()) for parts in rows.values())
    bottom = 40 + (_ROW + 6) * len(rows)
    frame = Frame(left, 36, _WIDTH - 60, bottom, (0, longest), (0, 1))
    body = _title(title)
    for index, (row, parts) in enumerate(rows.items()):
        top = 38 + index * (_ROW + 6)
        body += (
            f'<text x="{left - 8:.1f}" y="{top + 17}" text-anchor="end">{escape(row)}</text>'
            + _parts(frame, top, parts, colours)
            + f'<text x="{frame.across(sum(parts.values())) + 6:.1f}" y="{top + 17}">'
            f"{_number(sum(parts.values()))}</text>"
        )
    for index, name in enumerate(names):
        body += _key(left + 190 * (index % 3), bottom + 14 + 18 * (index // 3), colours[name], name)
    height = bottom + 18 * math.ceil(len(names) / 3) + 30
    body += f'<text x="{left:.1f}" y="{height - 8}">{escape(unit)}</text>'
    return _file(height, title, body)


def _parts(frame: Frame, top: float, parts: Mapping[str, float], colours: dict[str, str]) -> str:
    drawn, start = "", 0.0
    for name, value in parts.items():
        left, right = frame.across(start), frame.across(start + value)
        drawn += (
            f'<rect x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="{_ROW}" '
            f'fill="{colours[name]}"><title>{escape(name)}: {_number(value)}</title></rect>'
        )
        start += value
    return drawn


def _room(names: Iterable[str]) -> int:
    """Return how far right a plot begins that has ``names`` before it."""
    return round(20 + _LETTER * max(map(len, names), default=0))


def _file(height: float, title: str, body: str) -> str:
    return standalone(drawing(_WIDTH, height, title, body), _STYLE)


def _title(text: str) -> str:
    return f'<text class="title" x="12" y="20">{escape(text)}</text>'


def _labels(frame: Frame, x_label: str, y_label: str) -> str:
    middle = (frame.left + frame.right) / 2
    below = f'<text x="{middle}" y="{frame.bottom + 36}" text-anchor="middle">'
    return f"{below}{escape(x_label)}</text>" + upright(16, (frame.top + frame.bottom) / 2, y_label)


def _key(x: float, y: float, colour: str, name: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y}" width="12" height="12" fill="{colour}"/>'
        f'<text x="{x + 18:.1f}" y="{y + 10}">{escape(name)}</text>'
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Return four to seven round numbers that begin at or below ``low`` and reach ``high``."""
    span = (high - low) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / 5))
    step = next(unit * each for each in _STEPS if span / (unit * each) <= 6)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [(index * step, f"{index * step:g}") for index in range(first, max(last, first + 1) + 1)]
