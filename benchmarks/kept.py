"""Files that a benchmark keeps between runs: whole, and made by the code that is timed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import effdet_deploy

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOMS = ("model", "graph", "exporters", "precision")
"""What decides what an export holds."""


@contextlib.contextmanager
def finished(path: Path) -> Iterator[Path]:
    """Yield where to write; what is complete is moved to ``path``, where it is found again."""
    partly = path.with_name(f"{path.stem}.partial{path.suffix}")
    yield partly
    partly.replace(path)


@functools.cache
def code_digest() -> str:
    """Return what names an export, so that one by older code is not taken for this one."""
    package = Path(effdet_deploy.__file__).parent
    digest = hashlib.sha256()
    for room in _ROOMS:
        for source in sorted((package / room).rglob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:8]
