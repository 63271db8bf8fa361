"""What files are called that are made of pictures and classes, so that none replaces another."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_BYTES = 255
"""Of a name, on every file system that is in use."""
LONGEST = 240
"""Bytes of a name, which leave room for a number and a suffix."""
_RESERVED = {
    *("con", "prn", "aux", "nul"),
    *(f"{port}{number}" for port in ("com", "lpt") for number in range(10)),
}
"""Names that are devices on Windows, whatever their suffix."""
_UNSAFE = frozenset('<>:"/\\|?*')


@dataclass(frozen=True)
class Place:
    """What a picture is called in a set of pictures.

    Attributes:
        file: its path from the folder that all pictures of the set lie in, with slashes.
        stem: the same without a suffix, for a file that belongs to it; no two pictures share one.
        number: its COCO image id.
    """

    file: str
    stem: str
    number: int


def places_of(pictures: Sequence[Path]) -> dict[Path, Place]:
    """Return what each picture is called in the set that they are together.

    Image ids are the numbers that the pictures are named by, as COCO's own are, where all names are
    numbers and differ; otherwise they count from 1.
    """
    files = [each.absolute().as_posix() for each in pictures]
    # Only a path that goes up somewhere needs to be looked at again.
    files = [
        os.path.normpath(each).replace(os.sep, "/") if ".." in each else each for each in files
    ]
    try:
        home = os.path.commonpath([PurePosixPath(each).parent for each in files]) if files else ""
        files = [PurePosixPath(each).relative_to(PurePosixPath(home)).as_posix() for each in files]
    except ValueError:  # Windows: they lie on several drives
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
    """Names that are given once: one that is taken gets a number."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._again: Counter[str] = Counter()

    def free(self, wanted: str, suffix: str = "", longest: int = LONGEST) -> str:
        """Return ``wanted`` with ``suffix``; where that is taken, with ``-2``, ``-3``, … before it.

        The last part of a path is shortened to ``longest`` bytes first.
        """
        wanted = shortened(wanted, longest)
        name = wanted + suffix
        key = name.casefold()
        # Names that differ in case alone are one file on macOS and Windows.
        while name.casefold() in self._taken:
            self._again[key] += 1
            name = f"{wanted}-{self._again[key] + 1}{suffix}"
        self._taken.add(name.casefold())
        return name


def shortened(path: str, longest: int = LONGEST) -> str:
    """Return ``path`` with the last of its names cut to ``longest`` bytes, between characters."""
    folder, slash, name = path.rpartition("/")
    while len(os.fsencode(name)) > longest:
        name = name[:-1]
    return folder + slash + name


def safe_name(name: str) -> str:
    """Return ``name`` as one that every file system takes for a file or a folder.

    Characters that are not printable or that Windows refuses become ``_``.
    """
    kept = "".join("_" if each in _UNSAFE or not each.isprintable() else each for each in name)
    kept = shortened(kept.strip().rstrip(".") or "_")
    return f"_{kept}" if kept.partition(".")[0].casefold() in _RESERVED or kept[0] == "." else kept
