"""What a report consists of, as data: tables, whose columns say how a row gives its cell; findings.

:mod:`effdet_deploy.reports.text` shows them in a terminal, the templates in a page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Row = TypeVar("Row")
Kind = Literal["words", "code", "number", "verdict"]
"""Words and code stand left, numbers right; a verdict is a :data:`Tone` and is shown as a mark."""
Tone = Literal["", "passed", "failed", "inconclusive", "detail", "cause"]
"""A verdict, what it rests on, or what it comes from."""

ABSENT = "·"
"""The cell of what is not there, such as a count of none."""


@dataclass(frozen=True)
class Column(Generic[Row]):
    """A heading, and how a row gives its cell; a terminal has no room for what is ``page_only``."""

    heading: str
    cell: Callable[[Row], str]
    kind: Kind = "number"
    page_only: bool = False


@dataclass(frozen=True)
class Table(Generic[Row]):
    """Rows under columns.

    Attributes:
        columns: from left to right.
        groups: rows, parted by a line.
        title: above the table; may be empty.
        note: what was left out; only in a page.
        tone: of a row.
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
    """Return what stands beside a mAP where annotations do not seem to be of their pictures."""
    return [
        Finding(f"The mAP means nothing before this is settled: {each}", "inconclusive")
        for each in sentences
    ]
