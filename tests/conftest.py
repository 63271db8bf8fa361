"""Options of our own for pytest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = "| configuration | precision | batch | seconds | plan, MB |\n|---|---|---|---|---|\n"


def pytest_addoption(parser: pytest.Parser) -> None:
    # No Path: pytest-xdist sends options to its workers as plain values.
    parser.addoption(
        "--engine-table", metavar="FILE", help="append each engine that is built to FILE"
    )


@pytest.fixture(scope="session")
def engine_table(request: pytest.FixtureRequest) -> Callable[[str, str, str, float, int], None]:
    """Return what adds a line to the table of built engines, if one is wanted."""
    target = request.config.getoption("--engine-table")

    def add(name: str, precision: str, batch: str, seconds: float, size: int) -> None:
        if target is None:
            return
        path = Path(target)
        head = "" if path.exists() else HEAD
        with path.open("a", encoding="utf-8") as table:
            row = (name, precision.upper(), batch, f"{seconds:.1f}", f"{size / 1e6:.1f}")
            table.write(f"{head}| {' | '.join(row)} |\n")

    return add
