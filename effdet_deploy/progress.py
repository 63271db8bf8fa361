"""How long work says what it is doing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str], None]
"""Told in a few words whenever the next stage begins."""


def silent(_stage: str) -> None:
    """Report no progress."""
