"""The parts of a report as data: findings, and tables, whose columns turn a row into cells.

:mod:`effdet_deploy.reports.text` shows them in a terminal, and the templates show them in a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Row = TypeVar("Row")
Kind = Literal["words", "code", "number", "verdict"]
"""Words and code are aligned left, numbers right; a verdict is a :data:`Tone`, shown as a mark."""
Tone = Literal["", "passed", "failed", "inconclusive", "detail", "cause"]
"""How a sentence or row is marked: as a verdict, a detail behind a verdict, a cause, or not."""

ABSENT = "·"
"""The cell for an absent value, such as a count of 0."""


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A heading, and a function from row to cell; ``page_only`` columns are not for terminals."""

    heading: str
    cell: Callable[[Row], str]
    kind: Kind = "number"
    page_only: bool = False


@dataclass(frozen=True)
class Table(Generic[Row]):
    """Rows under columns.

    Attributes:
        columns: the columns from left to right.
        groups: groups of rows, separated by a line.
        title: the title above the table; may be empty.
        note: a sentence on what was left out; only shown in a page.
        tone: a function from a row to its tone.
    """

    columns: Sequence[Column[Row]]
    groups: Sequence[Sequence[Row]]
    title: str = ""
    note: str = ""
    tone: Callable[[Row], Tone] = lambda _row: ""


@dataclass(frozen=True)
class Finding:
    """A sentence of a report."""

    text: str
    tone: Tone


Part: TypeAlias = Table[Any] | Finding


def doubts(sentences: Iterable[str]) -> list[Finding]:
    """Return findings that warn of an mAP whose annotations do not seem to fit the pictures."""
    return [
        Finding(f"The mAP is not meaningful until this is settled: {each}", "inconclusive")
        for each in sentences
    ]
