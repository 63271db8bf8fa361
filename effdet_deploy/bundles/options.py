"""What a bundle can be told, and what it says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from effdet_deploy.detection.thresholds import ScoreThreshold


@dataclass(frozen=True)
class BundleOptions:
    """The command line's options of the same name; None leaves it to the model.

    Attributes:
        name: what the system calls the model; default the file's name without its suffix.
        labels: a file of class names, in place of those that the model has.
        labels_by: ``rank`` or ``id``: which output an id in that file is of.
        batch: how many frames DeepStream joins at most; default all that the model takes.
        score_threshold: below which DeepStream drops objects, for all classes or by name;
            default 0.3.
        single_output: one output ``[N,D,6]`` for the parser of DeepStream-Yolo.
    """

    name: str | None = None
    labels: Path | None = None
    labels_by: str | None = None
    batch: int | None = None
    score_threshold: ScoreThreshold | None = None
    single_output: bool = False


@dataclass(frozen=True)
class Bundle:
    """A folder that was written.

    Attributes:
        folder: that the system is pointed at.
        files: what was written, relative to ``folder``.
        next: the commands that use it, in order.
        notes: what the user should know, a sentence each.
    """

    folder: Path
    files: tuple[str, ...]
    next: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything about the bundle in a form that JSON can hold."""
        return {
            "folder": str(self.folder),
            "files": list(self.files),
            "next": list(self.next),
            "notes": list(self.notes),
        }


def refuse_others(options: BundleOptions, system: str, fields: tuple[str, ...]) -> None:
    """Refuse options of another system; raises UsageError."""
    for field in fields:
        if getattr(options, field) != getattr(BundleOptions(), field):
            raise UsageError(
                f"--{field.replace('_', '-')} is not for {system}.",
                "Leave it out.",
            )
