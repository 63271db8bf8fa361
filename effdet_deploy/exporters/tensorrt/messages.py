"""What the builder's process and its parent say to each other: pickles on its stdin and stdout.

Both ends are this package in this interpreter, so options, specs and errors travel as they are.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from effdet_deploy.artifact.spec import BatchSpec

if TYPE_CHECKING:
    from effdet_deploy.exporters.build_options import BuildOptions


@dataclass(frozen=True)
class Request:
    """What to build; without an ``onnx`` the process only tells what it is.

    ``onnx`` and ``plan`` are paths; ``plan`` is written before ``done`` is said.
    """

    options: BuildOptions
    onnx: str = ""
    plan: str = ""
    batch: BatchSpec = field(default_factory=BatchSpec)


def say(stream: IO[bytes], message: object) -> None:
    """Send one message."""
    pickle.dump(message, stream)
    stream.flush()


def hear(stream: IO[bytes]) -> Any:
    """Return the next message; None where the other side is gone, be it in the middle of one."""
    try:
        return pickle.load(stream)  # noqa: S301 - from our own process
    except (EOFError, pickle.UnpicklingError):
        return None
