"""Writing a new folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from effdet_deploy.detection.outputs import require_directory
from effdet_deploy.errors import UsageError
from effdet_deploy.files import staging

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a private folder that becomes ``target`` at the end; a failure leaves nothing behind.

    Raises:
        UsageError: ``target`` is a file, is not empty, or cannot be created.
        ResourceError: the disk is full.
    """
    require_directory(target)
    if target.is_dir() and any(target.iterdir()):
        raise UsageError(
            f"The folder '{target}' exists and is not empty.",
            "Name a new folder, or remove this folder first.",
        )
    # Missing parent folders are created at the end, when nothing can fail any more.
    home = next(each for each in target.absolute().parents if each.is_dir())
    with staging(home / target.name) as directory:
        folder = directory / target.name
        folder.mkdir()
        yield folder
        for each in filter(lambda path: path.is_file(), folder.rglob("*")):
            with each.open("r+b") as stream:
                os.fsync(stream.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            target.rmdir()
        folder.replace(target)


def files_in(folder: Path) -> tuple[str, ...]:
    """Return the files of a folder, relative to it, sorted."""
    found = (each.relative_to(folder) for each in folder.rglob("*") if each.is_file())
    return tuple(sorted(each.as_posix() for each in found))
