"""The messages between the builder's process and its parent: pickles on its stdin and stdout.

Both ends run this package in this interpreter, so options, specs and errors are sent as objects.
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
    """What to build; without ``onnx``, the process only reports its version.

    ``onnx`` and ``plan`` are the paths of the model and of the engine, which is complete before
    ``done`` is sent.
    """

    options: BuildOptions
    onnx: str = ""
    plan: str = ""
    batch: BatchSpec = field(default_factory=BatchSpec)


def say(stream: IO[bytes], message: object) -> None:
    """Send a message."""
    pickle.dump(message, stream)
    stream.flush()


def hear(stream: IO[bytes]) -> Any:
    """Return the next message; None if the other side is gone, even in mid-message."""
    try:
        return pickle.load(stream)  # noqa: S301 - from our own process
    except (EOFError, pickle.UnpicklingError):
        return None
