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
        "--engine-table",
        metavar="FILE",
        help="add a line of JSON to FILE for each built engine",
    )
    parser.addoption(
        "--fp16-table", metavar="FILE", help="add a line of JSON to FILE for each FP16 file"
    )
    parser.addoption(
        "--dry-gpu", action="store_true", help="run GPU tests that need only PyTorch on the CPU"
    )


@pytest.fixture(scope="session")
def engine_table(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return a function that adds an engine to the file of --engine-table, if this is given."""
    return _adder(request.config.getoption("--engine-table"))


@pytest.fixture(scope="session")
def fp16_table(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return a function that adds what FP16 costs to the file of --fp16-table, if this is given."""
    return _adder(request.config.getoption("--fp16-table"))


def _adder(target: str | None) -> Callable[..., None]:
    """Return a function that appends its keyword arguments to ``target``, as a line of JSON."""

    def add(**fields: object) -> None:
        if target is not None:
            with Path(target).open("a", encoding="utf-8") as table:
                table.write(json.dumps(fields) + "\n")

    return add
