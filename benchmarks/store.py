"""Files that a benchmark keeps between runs: exports, and a JSON document with its results."""

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

_EXPORTING = ("artifact", "pytorch", "onnxgraph", "exporters", "precision")
"""The folders of the package whose code decides what an export holds."""
_TIMED = ("effdet", "timm", "torch", "onnxruntime", "openvino", "numpy")
KEEPS_BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}
"""The environment of processes whose start is timed. Python keeps what it compiles, as it does
where pip installed the packages; otherwise every start would compile torch anew: ten seconds."""
ATTEMPTS = 3
"""A measurement is made at most this many times if other programs disturb it."""


def command_of(arguments: Sequence[str]) -> str:
    """Return a command's arguments as one line; a path outside the folder becomes its name."""
    shown = (Path(each).name if Path(each).is_absolute() else each for each in arguments)
    return shlex.join(shown)


def add_keeping(parser: ArgumentParser) -> None:
    """Add the options that say what is kept and what is used again."""
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write each result here when it is measured")
    parser.add_argument("--resume", action="store_true", help="keep the results in --json")
    parser.add_argument("--files", type=Path, help="keep exported files here, and reuse them")
    parser.add_argument("--prepare", action="store_true", help="only export into --files")
    parser.add_argument("--under-load", action="store_true", help="keep numbers of a busy machine")


def tell(text: str) -> None:
    """Print a line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def folder(kept: Path | None) -> Iterator[Path]:
    """Yield the folder for exported files: ``kept``, or a temporary one that is removed."""
    with contextlib.ExitStack() as stack:
        directory = kept or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.mkdir(parents=True, exist_ok=True)
        yield directory


@contextlib.contextmanager
def finished(path: Path) -> Iterator[Path]:
    """Yield a path to write to; the complete file is then moved to ``path``."""
    partly = path.with_name(f"{path.stem}.partial{path.suffix}")
    yield partly
    partly.replace(path)


@functools.cache
def code_digest() -> str:
    """Return a hash for the names of exports, so that an export by other code is not used."""
    package = Path(effdet_deploy.__file__).parent
    digest = hashlib.sha256()
    for directory in _EXPORTING:
        for source in sorted((package / directory).rglob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:8]


def circumstances() -> dict[str, Any]:
    """Return what results depend on: the machine, the versions of packages, and our code."""
    versions = {"effdet-deploy": effdet_deploy.__version__}
    for name in _TIMED:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {"machine": str(describe_machine()), "versions": versions, "code": code_digest()}


@dataclass
class Record:
    """The results so far; :meth:`save` writes them to their file."""

    path: Path | None
    document: dict[str, Any]

    @classmethod
    def open(
        cls, path: Path | None, here: dict[str, Any], empty: dict[str, Any], *, resume: bool = True
    ) -> Record:
        """Continue the document at ``path``, or begin one that holds ``here`` and ``empty``.

        ``here`` are the circumstances of this run, and ``empty`` the results before the first one.

        Raises:
            UsageError: the document was measured in other circumstances than ``here``.
        """
        if not (resume and path is not None and path.is_file()):
            return cls(path, here | empty)
        found = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name, value in here.items() if found.get(name) != value]
        if other:
            raise UsageError(
                f"'{path}' was measured with another {' and '.join(other)}.",
                "Name another file, or move this one away to measure everything again.",
            )
        return cls(path, here | empty | found)

    def save(self) -> None:
        """Write the document, if it has a path."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps(self.document, indent=1) + "\n")


def measured_quietly(measure: Callable[[], dict[str, Any]], *, under_load: bool) -> dict[str, Any]:
    """Measure, and repeat the measurement if other programs disturbed it.

    Raises:
        ResourceError: every attempt was disturbed, and ``under_load`` is False.
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
        "Stop the other programs and run the benchmark again with --resume, or pass --under-load.",
    )
