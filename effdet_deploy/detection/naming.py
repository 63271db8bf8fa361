"""File names that are made from pictures and classes, so that no file replaces another."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_BYTES = 255
"""The longest name in bytes that the usual file systems allow."""
LONGEST = 240
"""The longest name in bytes that leaves room for a number and a suffix."""
_RESERVED = {
    *("con", "prn", "aux", "nul"),
    *(f"{port}{number}" for port in ("com", "lpt") for number in range(10)),
}
"""Names that Windows reserves for devices, whatever suffix follows."""
_UNSAFE = frozenset('<>:"/\\|?*')


@dataclass(frozen=True)
class Place:
    """The names of a picture within a set of pictures.

    Attributes:
        file: its path from the common folder of all pictures, with slashes.
        stem: this path without a suffix, for files that belong to the picture; always distinct.
        number: its COCO image id.
    """

    file: str
    stem: str
    number: int


def places_of(pictures: Sequence[Path]) -> dict[Path, Place]:
    """Return the names of pictures within the set that they form.

    If all file names are different numbers, as in COCO, these are the image ids; otherwise the ids
    count from 1.
    """
    files = [each.absolute().as_posix() for each in pictures]
    # Only paths with ``..`` have to be resolved.
    files = [
        os.path.normpath(each).replace(os.sep, "/") if ".." in each else each for each in files
    ]
    try:
        home = os.path.commonpath([PurePosixPath(each).parent for each in files]) if files else ""
        files = [PurePosixPath(each).relative_to(PurePosixPath(home)).as_posix() for each in files]
    except ValueError:  # Windows: the pictures lie on several drives
        files = [PurePosixPath(each).name for each in files]
    names = Names()
    stems = [names.free(PurePosixPath(each).with_suffix("").as_posix()) for each in files]
    numbers = _numbers(PurePosixPath(each).stem for each in files)
    return {
        picture: Place(file, stem, number)
        for picture, file, stem, number in zip(pictures, files, stems, numbers, strict=True)
    }


def _numbers(stems: Iterable[str]) -> Sequence[int]:
    said = list(stems)
    if all(each.isascii() and each.isdecimal() and len(each) < 16 for each in said):
        numbers = [int(each) for each in said]
        if len(set(numbers)) == len(numbers):
            return numbers
    return range(1, len(said) + 1)


class Names:
    """Gives every name only once: a name that is taken gets a number."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._again: Counter[str] = Counter()

    def free(self, wanted: str, suffix: str = "", longest: int = LONGEST) -> str:
        """Return ``wanted`` with ``suffix``, and ``-2``, ``-3``, … between them if that is taken.

        The last part of a path is first shortened to ``longest`` bytes.
        """
        wanted = shortened(wanted, longest)
        name = wanted + suffix
        key = name.casefold()
        # Names that differ only in case are the same file on macOS and Windows.
        while name.casefold() in self._taken:
            self._again[key] += 1
            name = f"{wanted}-{self._again[key] + 1}{suffix}"
        self._taken.add(name.casefold())
        return name


def shortened(path: str, longest: int = LONGEST) -> str:
    """Return ``path`` with its last part cut to ``longest`` bytes, between characters."""
    folder, slash, name = path.rpartition("/")
    while len(os.fsencode(name)) > longest:
        name = name[:-1]
    return folder + slash + name


def safe_name(name: str) -> str:
    """Return ``name`` in a form that every file system accepts for a file or folder.

    Unprintable characters, and those that Windows refuses, become ``_``.
    """
    kept = "".join("_" if each in _UNSAFE or not each.isprintable() else each for each in name)
    kept = shortened(kept.strip().rstrip(".") or "_")
    return f"_{kept}" if kept.partition(".")[0].casefold() in _RESERVED or kept[0] == "." else kept
