"""How long-running functions report what they are doing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str], None]
"""A function that is called with a few words whenever the next stage begins."""


def silent(_stage: str) -> None:
    """Do nothing: the default where no progress is wanted."""
