"""What a benchmark keeps between runs: finished files, and a JSON document of what was measured."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shlex
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import effdet_deploy
from effdet_deploy.benchmark import describe_machine
from effdet_deploy.errors import ResourceError, UsageError
from effdet_deploy.files import write_atomically

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Iterator, Sequence

_ROOMS = ("artifact", "pytorch", "onnxgraph", "exporters", "precision")
"""What decides what an export holds."""
_TIMED = ("effdet", "timm", "torch", "onnxruntime", "openvino", "numpy")
ATTEMPTS = 3
"""A measurement that other programs disturbed is repeated, up to this many times in all."""


def command_of(arguments: Sequence[str]) -> str:
    """Return a command's arguments as one line; of a path outside the folder, the name only."""
    shown = (Path(each).name if Path(each).is_absolute() else each for each in arguments)
    return shlex.join(shown)


def add_keeping(parser: ArgumentParser) -> None:
    """Give a command the options that say what is kept, and what of it is used again."""
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="what is measured is written here at once")
    parser.add_argument("--resume", action="store_true", help="keep what is in --json already")
    parser.add_argument("--files", type=Path, help="keep exported files here, and reuse them")
    parser.add_argument("--prepare", action="store_true", help="only make what --files keeps")
    parser.add_argument("--under-load", action="store_true", help="keep numbers of a busy machine")


def tell(text: str) -> None:
    """Say on stderr what goes on."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def folder(kept: Path | None) -> Iterator[Path]:
    """Yield the folder for exported files, which is gone afterwards unless it is to be kept."""
    with contextlib.ExitStack() as stack:
        directory = kept or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.mkdir(parents=True, exist_ok=True)
        yield directory


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
    versions = {"effdet-deploy": effdet_deploy.__version__}
    for name in _TIMED:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {"machine": str(describe_machine()), "versions": versions, "code": code_digest()}


@dataclass
class Record:
    """What has been measured so far, written to its file after every step."""

    path: Path | None
    document: dict[str, Any]

    @classmethod
    def open(
        cls, path: Path | None, here: dict[str, Any], empty: dict[str, Any], *, resume: bool = True
    ) -> Record:
        """Continue the document at ``path``, or begin one with ``here`` and ``empty`` in it.

        Raises:
            UsageError: it was measured in other circumstances than ``here``.
        """
        if not (resume and path is not None and path.is_file()):
            return cls(path, here | empty)
        found = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name, value in here.items() if found.get(name) != value]
        if other:
            raise UsageError(
                f"'{path}' was measured with another {' and '.join(other)}.",
                "Name another file, or move it away to measure everything anew.",
            )
        return cls(path, here | empty | found)

    def save(self) -> None:
        """Write everything."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(self.document, indent=1) + "\n")


def measured_quietly(measure: Callable[[], dict[str, Any]], *, under_load: bool) -> dict[str, Any]:
    """Measure, and again while other programs disturb it.

    Raises:
        ResourceError: the machine never was quiet, and numbers were not asked for all the same.
    """
    for attempt in range(1, ATTEMPTS + 1):
        found = measure()
        reasons = found["load"]["reasons"]
        if not reasons:
            return found
        tell(f"disturbed, attempt {attempt} of {ATTEMPTS}: {' and '.join(reasons)}")
    if under_load:
        return found
    raise ResourceError(
        f"The numbers measured here are not reliable: {' and '.join(reasons)}.",
        "Stop the other programs and run it again with --resume, or pass --under-load.",
    )
