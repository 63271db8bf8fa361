"""What a benchmark keeps between runs: whole files, made and measured by the code that is timed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import effdet_deploy
from effdet_deploy.benchmark import describe_machine
from effdet_deploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOMS = ("model", "graph", "exporters", "precision")
"""What decides what an export holds."""
_TIMED = ("effdet-deploy", "effdet", "timm", "torch", "onnxruntime", "openvino", "numpy")


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


def circumstances() -> dict[str, Any]:
    """Return what figures depend on: the machine, the versions of what is timed, and our code."""
    versions = {name: version(name) for name in _TIMED}
    return {"machine": str(describe_machine()), "versions": versions, "code": code_digest()}


def measured_here(path: Path, here: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON document at ``path``, to which more is to be added.

    Raises:
        UsageError: it was measured in other :func:`circumstances` than ``here``.
    """
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if any(found.get(name) != value for name, value in here.items()):
        raise UsageError(
            f"'{path}' was measured on another machine, or with other versions or code.",
            "Name another file, or leave --resume out to measure everything anew.",
        )
    return found
