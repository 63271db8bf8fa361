"""Options of our own for pytest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


def pytest_addoption(parser: pytest.Parser) -> None:
    # No Path: pytest-xdist sends options to its workers as plain values.
    parser.addoption(
        "--engine-table", metavar="FILE", help="append each engine that is built to FILE, as JSON"
    )
    parser.addoption(
        "--dry-gpu", action="store_true", help="run tests of PyTorch on a GPU on the CPU instead"
    )


@pytest.fixture(scope="session")
def engine_table(request: pytest.FixtureRequest) -> Callable[[str, str, str, float, int], None]:
    """Return a function that adds an engine to the file of --engine-table, if one was named."""
    target = request.config.getoption("--engine-table")

    def add(name: str, precision: str, batch: str, seconds: float, size: int) -> None:
        if target is None:
            return
        row = {
            "name": name,
            "precision": precision,
            "batch": batch,
            "seconds": round(seconds, 1),
            "size": size,
        }
        with Path(target).open("a", encoding="utf-8") as table:
            table.write(json.dumps(row) + "\n")

    return add
