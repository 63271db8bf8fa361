"""Reports for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table as Grid
from rich.text import Text

from effdet_deploy.reports.columns import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from effdet_deploy.reports.columns import Part, Table

_MARKS: dict[str, tuple[str, str]] = {
    "": ("", ""),
    "passed": ("[✓]", "green"),
    "failed": ("[✗]", "bold red"),
    "inconclusive": ("[?]", "yellow"),
    "cause": ("  ➜", "bold yellow"),
    "detail": ("     ", ""),
}


def show(parts: Iterable[Part | str]) -> RenderableType:
    """Return sentences and tables, one below the other."""
    shown: list[RenderableType] = []
    for each in parts:
        if isinstance(each, Finding):
            style = "dim" if each.tone == "detail" else ""
            shown.append(Text.assemble(_MARKS[each.tone], " ", (each.text, style)))
        else:
            shown.append(Text(each) if isinstance(each, str) else grid(each))
    return Group(*shown)


def grid(table: Table[Any], look: box.Box | None = box.SIMPLE_HEAD) -> Grid:
    """Return a table for a terminal; without ``look`` it has no lines."""
    columns = [each for each in table.columns if not each.page_only]
    drawn = Grid(box=look, pad_edge=False, padding=(0, 1 if look else 2))
    drawn.title = Text(table.title) if table.title else None
    for each in columns:
        is_left = each.kind in ("words", "code")
        drawn.add_column(
            Text(each.heading), justify="left" if is_left else "right", overflow="fold"
        )
    for rows in table.groups:
        for row in rows:
            first, *others = (
                Text(*_MARKS[each.cell(row)]) if each.kind == "verdict" else Text(each.cell(row))
                for each in columns
            )
            first.stylize(_MARKS[table.tone(row)][1])
            drawn.add_row(first, *others)
        drawn.add_section()
    return drawn


def pairs(rows: Sequence[tuple[str, str]]) -> Grid:
    """Return names with their values as two columns."""
    drawn = Grid(box=box.SIMPLE, show_header=False, pad_edge=False)
    drawn.add_column(style="bold", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in rows:
        drawn.add_row(name, Text(value))
    return drawn
