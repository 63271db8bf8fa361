"""What the builder's process and its parent say to each other: one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.exporters.build_options import BuildOptions

CANCEL = "cancel\n"
"""The one line that the parent may send after the request."""

EventKind = Literal["ready", "progress", "warning", "failed", "done"]


@dataclass(frozen=True)
class Request:
    """What to build; without an ``onnx`` the process only tells what it is.

    ``onnx`` and ``plan`` are paths; ``plan`` is written before ``done`` is said.
    """

    options: BuildOptions
    onnx: str = ""
    plan: str = ""
    batch: BatchSpec = field(default_factory=BatchSpec)

    def to_line(self) -> str:
        """Return the request as one line of JSON."""
        return json.dumps(asdict(self), default=str) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Request:
        """Read what :meth:`to_line` wrote."""
        document = json.loads(line)
        options = document["options"]
        if options["timing_cache"] is not None:
            options["timing_cache"] = Path(options["timing_cache"])
        return cls(
            BuildOptions(**options),
            document["onnx"],
            document["plan"],
            BatchSpec(**document["batch"]),
        )


@dataclass(frozen=True)
class Event:
    """What the builder's process tells: a kind and its own fields.

    ``ready``: ``version``, ``gpu``, ``compute_capability``. ``progress``: ``phase``, ``step``,
    ``steps``. ``warning``: ``text``. ``failed``: ``stage``, ``messages``, ``errno``.
    """

    kind: EventKind
    fields: dict[str, Any]

    def to_line(self) -> str:
        """Return the event as one line of JSON."""
        return json.dumps({"kind": self.kind, **self.fields}) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Event:
        """Read what :meth:`to_line` wrote."""
        document = json.loads(line)
        return cls(document.pop("kind"), document)
