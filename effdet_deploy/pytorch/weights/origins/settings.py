"""The file of settings that a training leaves beside its weights, and where to look for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import WeightsError
from effdet_deploy.files import BROKEN_DOCUMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_INNER = ("checkpoint", "checkpoints", "variables", "saved_model")
"""Folders of weights alone: the settings lie above them."""


@dataclass(frozen=True)
class Settings:
    """What a file of settings, or a checkpoint beside its weights, says of the network.

    Attributes:
        source: the file's name.
        fields: config fields that it states.
        variant: our short name of the network, where the file names it.
        labels: a name for each class, where the file has names.
        assumed: a sentence each on what the project's files do not say.
        is_inside: they stand in the checkpoint itself.
        contradictions: fields that they state twice, differently, and what they say of each.
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
    """The settings of one project: what its files are called, and what reads one.

    ``read`` takes name and text. It raises one of :data:`BROKEN_DOCUMENT` for what is no such file,
    and WeightsError for a network that the names of its weights do not tell from effdet's.
    """

    names: tuple[str, ...]
    read: Callable[[str, str], Settings]

    def beside(self, weights: Path) -> Settings | None:
        """Read the settings beside a file or folder of ``weights``; None where there are none.

        Raises:
            WeightsError: they cannot be read, or are of a network that is not effdet's.
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
                "Mend the file, or move it away and state its values as options.",
            ) from error
