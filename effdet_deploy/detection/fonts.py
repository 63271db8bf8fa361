"""Fonts for class names in any script: Pillow's own font, then installed fonts.

A font draws a missing character as a square. So every character is looked up: in the font that the
user named, in Pillow's font, and in installed fonts; characters that no font has are escaped.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import unicodedata
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import ImageFont

from effdet_deploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

    Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
    Run = tuple[str, Font]
    Face = Path | None
    """A font file; None is the font inside Pillow."""

_SUFFIXES = {".otf", ".ttc", ".ttf"}
_STYLES = ("bold", "black", "condensed", "italic", "light", "mono", "oblique", "serif", "thin")
"""Fonts with these words in their file names are tried last, after plain upright fonts."""
_PLACEHOLDERS = "lastresort"
"""The file names of two fonts, Apple's and Unicode's, begin like this; they show only a box with
the script's name for every character."""
_SEARCH_SIZE = 16
"""The size in pixels at which fonts are opened to look for characters."""
_NO_FACE = Path()
"""Stands for the missing font if no font has the letters."""
_NO_CHARACTER = "\U0010ffff"
_INVISIBLE = {"Cf", "Zs"}
_UNDRAWABLE = {"Cc", "Cn", "Co", "Cs"}


class Lettering:
    """Fonts of one size that together draw as many characters as they can.

    Args:
        size: in pixels.
        chosen: a font file that is tried first.

    Raises:
        DataError: ``chosen`` is not a font.
    """

    def __init__(self, size: int, chosen: Path | None = None) -> None:
        self._size = size
        self._first: tuple[Face, ...] = (None,) if chosen is None else (chosen, None)
        try:
            self.main = _opened(self._first[0], size)
        except (OSError, ValueError, ImportError) as error:
            raise DataError(
                f"The font '{chosen}' cannot be used: {error}.", "Name a .ttf, .otf or .ttc file."
            ) from error

    def runs(self, text: str) -> list[Run]:
        """Split a line of text into parts, each of which one font can draw without squares.

        Characters that no font has are simplified (without accents, ligatures split) or escaped.
        """
        line = " ".join(text.split()) or " "
        letters = "".join(sorted(set(line)))
        if (whole := self._face(letters)) is not _NO_FACE:
            return [(line, _opened(whole, self._size))]
        placed = [(each, self._face(each)) for each in line]
        plain = self._first[0]
        shown = [(_escaped(x, plain), plain) if on is _NO_FACE else (x, on) for x, on in placed]
        return [
            ("".join(part for part, _ in parts), _opened(face, self._size))
            for face, parts in itertools.groupby(shown, key=lambda run: run[1])
        ]

    def written(self, text: str) -> str:
        """Return ``text`` as it will be drawn."""
        return "".join(part for part, _ in self.runs(text))

    def _face(self, letters: str) -> Face:
        """Return the first font that has all ``letters``."""
        return next(
            (each for each in self._first if _has_all(each, letters)), _installed_with(letters)
        )


def require_font(chosen: Path | None) -> None:
    """Check that a font file can be used, before any work; raises DataError."""
    if chosen is not None:
        Lettering(_SEARCH_SIZE, chosen)


def unwritten(names: Iterable[str], chosen: Path | None = None) -> list[str]:
    """Return the ``names`` that no font here can draw unchanged; raises as :class:`Lettering`."""
    lettering = Lettering(_SEARCH_SIZE, chosen)
    return [name for name in names if lettering.written(name) != " ".join(name.split())]


@lru_cache(maxsize=64)
def _opened(face: Face, size: int) -> Font:
    if face is not None:
        return ImageFont.truetype(face, size)
    try:
        return ImageFont.load_default(size)
    except (ImportError, OSError):
        # A Pillow built without FreeType has one bitmap font of one size.
        return ImageFont.load_default()


def _has_all(face: Face, letters: str) -> bool:
    return all(_has(face, letter) for letter in letters)


@cache
def _has(face: Face, letter: str) -> bool:
    """Return whether a font has its own sign for a letter."""
    kind = unicodedata.category(letter)
    if kind in _UNDRAWABLE:
        return False
    font = _opened(face, _SEARCH_SIZE)
    if not isinstance(font, ImageFont.FreeTypeFont):
        return letter.isascii()
    return kind in _INVISIBLE or _ink(font, letter) != _ink(font, _NO_CHARACTER)


def _ink(font: ImageFont.FreeTypeFont, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def _escaped(letter: str, face: Face) -> str:
    parts = unicodedata.normalize("NFKD", letter)
    plain = "".join(each for each in parts if not unicodedata.combining(each))
    if plain and _has_all(face, plain):
        return plain
    return f"\\x{ord(letter):02x}" if letter.isascii() else ascii(letter)[1:-1]


@cache
def _installed_with(letters: str) -> Face:
    """Return the plainest installed font that has all ``letters``."""
    for path in _installed():
        # A font may be damaged, or have bitmaps in other sizes only.
        with contextlib.suppress(OSError, ValueError):
            if _has_all(path, letters):
                return path
    return _NO_FACE


@cache
def _installed() -> tuple[Path, ...]:
    found = {
        Path(folder, name)
        for start in font_folders()
        for folder, _, names in os.walk(start)
        for name in names
        if Path(name).suffix.lower() in _SUFFIXES and not name.lower().startswith(_PLACEHOLDERS)
    }

    def plainness(path: Path) -> tuple[int, str]:
        return sum(style in path.stem.lower() for style in _STYLES), str(path)

    return tuple(sorted(found, key=plainness))


def font_folders() -> tuple[Path, ...]:
    """Return the folders in which this platform keeps its fonts and the user's own."""
    home = Path.home()
    if sys.platform == "win32":
        system = os.environ.get("SYSTEMROOT", "C:/Windows")
        local = os.environ.get("LOCALAPPDATA", "")
        return (Path(system, "Fonts"), Path(local, "Microsoft", "Windows", "Fonts"))
    if sys.platform == "darwin":
        return (Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts")
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    own = os.environ.get("XDG_DATA_HOME") or str(home / ".local" / "share")
    return (*(Path(each, "fonts") for each in (*shared.split(":"), own) if each), home / ".fonts")
