"""Charts as SVG, drawn by matplotlib, for files of their own and for HTML pages.

In a file, a chart has a white background and the XML namespace. In a page, it takes the colors of
the page's style sheet, light or dark. No chart contains a date.
"""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    Tips = dict[Artist, list[str]]
    Shift = tuple[float, float]

COLORS = {
    "ink": "#16202c",
    "soft": "#5b6878",
    "line": "#dfe5ec",
    "band": "#f1f4f8",
    "both": "#1f9d6b",
    "missed": "#d13b4f",
    "extra": "#e08a00",
    "open": "#b87900",
    "accent": "#2f5fd0",
}
"""The colors of the page's light style sheet, by the names that they have in the style sheet."""
_OURS, THEIRS = COLORS["accent"], "#a9b4c2"
_STYLE = Path(__file__).parent / "templates" / "chart.mplstyle"
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_REWRITES = (
    (r' xmlns(:\w+)?="[^"]*"', ""),
    ("xlink:href", "href"),
    (r"font-family: [^;\"]*;? ?", ""),
    (r"\s*\n\s*", " "),
)
"""Parts of an SVG that are not needed; the reader's program chooses the fonts."""
_XML = "http://www.w3.org/2000/svg"
_FONTS = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif'
WIDTH, _ROW = 760, 26
"""The width of a chart, and the height of a bar with its margin, in drawing units."""


@dataclass(frozen=True)
class Mark:
    """A named value: a bar of length ``x``, or a point at ``x`` and ``y``.

    With ``is_ours``, the value belongs to this package and has a color; other values are gray.
    """

    name: str
    x: float
    y: float = 0.0
    is_ours: bool = False


@dataclass(frozen=True)
class Series:
    """A named line through points ``(x, y)``."""

    name: str
    points: tuple[tuple[float, float], ...]


@contextlib.contextmanager
def chart_style() -> Iterator[None]:
    """Draw in the same way on every machine, whatever matplotlib's settings are there."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(mpl.rc_params_from_file(_STYLE, use_default_template=False))
        yield


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure with one plot; width and height are in drawing units."""
    figure = Figure((width / 72, height / 72))
    return figure, figure.add_subplot()


def to_svg(
    figure: Figure,
    label: str,
    tips: Tips | None = None,
    *,
    in_page: bool = False,
) -> str:
    """Return a figure as an SVG element.

    Args:
        figure: the figure.
        label: a description of what the chart shows.
        tips: the texts that appear when the pointer rests on a mark: for an artist, one text per
            mark.
        in_page: use the page's colors, and leave out the XML namespace that a file needs.
    """
    tips = tips or {}
    for number, artist in enumerate(tips):
        artist.set_gid(f"tips-{number}")
    figure.patch.set_visible(not in_page)
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata=_NO_METADATA)
    text = stream.getvalue().decode()
    for pattern, instead in _REWRITES:
        text = re.sub(pattern, instead, text)
    root = ET.fromstring(text)  # noqa: S314 - matplotlib wrote it
    # This removes matplotlib's style sheet, whose rule would apply to the whole page.
    root.remove(root[0])
    for number, texts in enumerate(tips.values()):
        (group,) = root.iterfind(f".//*[@id='tips-{number}']")
        marks = list(group.iter("use")) or list(group.iter("path"))
        for mark, tip in zip(marks, texts, strict=True):
            ET.SubElement(mark, "title").text = tip
    named = set(re.findall(r"#(\w+)", text))
    for element in root.iter():
        if element.get("id", "") not in named:
            element.attrib.pop("id", None)
        if in_page and "style" in element.attrib:
            for name, color in COLORS.items():
                element.attrib["style"] = element.attrib["style"].replace(color, f"var(--{name})")
    space = {} if in_page else {"xmlns": _XML, "font-family": _FONTS}
    box = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    root.attrib = space | box
    return ET.tostring(root, encoding="unicode")


def note(axes: Axes, text: str, at: tuple[float, float], shift: Shift, **look: Any) -> None:
    """Write a text beside a point of the plot, moved by ``shift`` drawing units: right, up."""
    axes.annotate(text, at, shift, textcoords="offset points", **look)


@chart_style()
def bar_chart(title: str, unit: str, bars: Sequence[Mark]) -> str:
    """Draw horizontal bars in the given order, with their names and values."""
    figure, axes = canvas(WIDTH, 64 + _ROW * len(bars))
    colors = [_OURS if each.is_ours else THEIRS for each in bars]
    drawn = axes.barh(range(len(bars)), [each.x for each in bars], 0.7, color=colors)
    axes.bar_label(drawn, [written(each.x) for each in bars], padding=5)
    name_rows(axes, [each.name for each in bars], unit)
    axes.set_title(title)
    tips = {bar: [f"{each.name}: {written(each.x)}"] for bar, each in zip(drawn, bars, strict=True)}
    return to_svg(figure, title, tips)


@chart_style()
def line_chart(title: str, x_label: str, y_label: str, series: Sequence[Series]) -> str:
    """Draw lines; the values of x are evenly spaced, even if they are 1, 2, 4 and 8."""
    numbers = sorted({x for line in series for x, _ in line.points})
    figure, axes = canvas(WIDTH, 300 + 18 * len(series))
    tips: Tips = {}
    for line in series:
        points = sorted(line.points)
        places, values = [numbers.index(x) for x, _ in points], [y for _, y in points]
        (drawn,) = axes.plot(places, values)
        (dots,) = axes.plot(places, values, "o", color=drawn.get_color(), label=line.name)
        tips[dots] = [f"{line.name}: {written(y)} at {x:g}" for x, y in points]
    axes.set_xticks(range(len(numbers)), [f"{each:g}" for each in numbers])
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    figure.legend(loc="outside lower left")
    return to_svg(figure, title, tips)


def name_rows(axes: Axes, names: list[str], unit: str) -> None:
    """Name horizontal bars, with the first bar on top."""
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    # A bar has its value written beside it, so the axis needs no ticks.
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel(unit, loc="left")
    axes.margins(x=0.1)


def written(value: float) -> str:
    """Return a value as text for a chart."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
