"""The options of a bundle, and its description afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from effdet_deploy.detection.thresholds import ScoreThreshold


@dataclass(frozen=True)
class BundleOptions:
    """The options of ``effdet-deploy bundle``; None takes the value from the model.

    Attributes:
        name: the model's name in the system; default: the file's name without its suffix.
        labels: a file of class names that replace the model's own.
        labels_by: ``rank`` or ``id``: how ids in that file number the outputs.
        batch: the most frames in a batch of DeepStream; default: the model's largest batch.
        score_threshold: DeepStream drops objects with lower scores; one number, or numbers by class
            name; default: 0.3.
        single_output: give one output ``[N,D,6]`` for the parser of DeepStream-Yolo.
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
        folder: the folder that the system is given.
        files: the written files, relative to ``folder``.
        next: the commands that use the folder, in order.
        notes: sentences that the user should read.
    """

    folder: Path
    files: tuple[str, ...]
    next: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything about the bundle as a document for JSON."""
        return {
            "folder": str(self.folder),
            "files": list(self.files),
            "next": list(self.next),
            "notes": list(self.notes),
        }


def refuse_others(options: BundleOptions, system: str, fields: tuple[str, ...]) -> None:
    """Refuse options that belong to another system; raises UsageError."""
    for field in fields:
        if getattr(options, field) != getattr(BundleOptions(), field):
            raise UsageError(
                f"--{field.replace('_', '-')} is not for {system}.",
                "Leave this option out.",
            )
