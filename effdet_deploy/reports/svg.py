"""The parts of a chart in SVG: a frame with its axes, and the drawing around it.

Charts stand in HTML pages, whose style sheet they take, or in files of their own, which bring one.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    Ticks = Sequence[tuple[float, str]]

_NAMESPACE = "http://www.w3.org/2000/svg"


@dataclass(frozen=True)
class Frame:
    """The plot inside a drawing: its edges in drawing units, and the values at the edges."""

    left: float
    top: float
    right: float
    bottom: float
    x: tuple[float, float]
    y: tuple[float, float]

    def across(self, value: float) -> float:
        """Return the horizontal place of a value."""
        low, high = self.x
        return self.left + (value - low) / ((high - low) or 1) * (self.right - self.left)

    def up(self, value: float) -> float:
        """Return the vertical place of a value."""
        low, high = self.y
        return self.bottom - (value - low) / ((high - low) or 1) * (self.bottom - self.top)

    def grid(self, ticks: Ticks) -> str:
        """Return horizontal lines with labels."""
        return "".join(
            f'<line class="grid" x1="{self.left}" x2="{self.right}" y1="{self.up(at):.1f}" '
            f'y2="{self.up(at):.1f}"/><text x="{self.left - 8}" y="{self.up(at) + 4:.1f}" '
            f'text-anchor="end">{escape(text)}</text>'
            for at, text in ticks
        )

    def below(self, ticks: Ticks) -> str:
        """Return labels under the plot."""
        return "".join(
            f'<text x="{self.across(at):.1f}" y="{self.bottom + 18}" text-anchor="middle">'
            f"{escape(text)}</text>"
            for at, text in ticks
        )


def drawing(width: float, height: float, label: str, body: str) -> str:
    """Return the SVG element around ``body``; ``label`` says what it shows."""
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{body}</svg>'
    )


def standalone(element: str, style: str) -> str:
    """Return a drawing as a file of its own, on white ground, with the style sheet ``style``."""
    opening, _, rest = element.partition(">")
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    named = opening.replace("<svg", f'<svg xmlns="{_NAMESPACE}"', 1)
    return f"{named}><style>{style}</style>{ground}{rest}\n"


def upright(x: float, y: float, text: str) -> str:
    """Return a label that is read from below upwards, centred on a place."""
    return (
        f'<text x="{x}" y="{y}" text-anchor="middle" transform="rotate(-90 {x} {y})">'
        f"{escape(text)}</text>"
    )
