"""The settings file that a training leaves beside its weights, and where to look for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import WeightsError
from effdet_deploy.files import BROKEN_DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_INNER = ("checkpoint", "checkpoints", "variables", "saved_model")
"""Folders that only hold weights: the settings lie in the folder above."""


@dataclass(frozen=True)
class Settings:
    """What a settings file, or a checkpoint that holds settings too, states about the network.

    Attributes:
        source: the file's name.
        fields: the config fields that it states.
        variant: our short name of the network, if the file names it.
        labels: one name per class, if the file has names.
        assumed: sentences about what the project's files do not say.
        is_inside: whether the settings are in the checkpoint itself.
        contradictions: fields that the settings state twice → the two different values, as text.
    """

    source: str
    fields: Mapping[str, Any]
    variant: str | None = None
    labels: tuple[str, ...] | None = None
    assumed: tuple[str, ...] = ()
    is_inside: bool = False
    contradictions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SettingsFile:
    """The settings of a project: the names of its files, and the function that reads one.

    ``read`` takes the name and the text of a file. It raises one of :data:`BROKEN_DOCUMENT` if the
    text is not a settings file of the project, and WeightsError for a network that differs from
    effdet's despite equal names.
    """

    names: tuple[str, ...]
    read: Callable[[str, str], Settings]

    def beside(self, weights: Path) -> Settings | None:
        """Read the settings beside a file or folder of ``weights``; None without settings.

        Raises:
            WeightsError: the settings cannot be read, or belong to a network that is not effdet's.
        """
        folder = (weights if weights.is_dir() else weights.parent).absolute()
        while folder.name in _INNER:
            folder = folder.parent
        path = next((each for name in self.names if (each := folder / name).is_file()), None)
        if path is None:
            return None
        try:
            return self.read(path.name, path.read_text(encoding="utf-8-sig"))
        except BROKEN_DOCUMENT as error:
            raise WeightsError(
                f"The settings '{path.name}' beside the weights cannot be read: "
                f"{str(error).rstrip('.')}.",
                "Repair the file, or move it away and pass its values as options.",
            ) from error
