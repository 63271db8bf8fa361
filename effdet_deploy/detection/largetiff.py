"""TIFF files of any size, read part by part: only the tiles or strips that a part needs.

Pillow always decodes a whole file. The tiles and strips of a TIFF do not depend on each other, so
every one is given to Pillow as a small TIFF with the tags of the large file.
"""

from __future__ import annotations

import io
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, TiffImagePlugin

from effdet_deploy.detection.images import MAX_PIXELS, UNDECODABLE, load_image
from effdet_deploy.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# Numbers of TIFF tags.
_WIDTH, _HEIGHT, _ORIENTATION, _PLANAR, _DEPTH = 256, 257, 274, 284, 258
_ROWS_PER_STRIP, _STRIPS, _STRIP_BYTES = 278, 273, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 322, 323, 324, 325
_COPIED = (258, 259, 262, 266, 277, 317, 320, 338, 339, 347, 530, 532)
"""Tags that say how a block is decoded: depth, compression, colors, predictor, JPEG's tables."""
_LONGEST_SIDE = 4096
"""The longest side, in pixels, of the whole picture scaled down; no network takes a longer one."""


class LargeTiff:
    """A TIFF file that is read block by block; a block is a tile or a strip.

    Args:
        path: the file.
        channels: as :func:`~effdet_deploy.detection.images.load_image` takes it.

    Raises:
        ImageError: it is not a TIFF, or has a form that cannot be read in parts.
    """

    def __init__(self, path: Path, channels: int) -> None:
        self._path = path
        self._channels = channels
        try:
            with path.open("rb") as file:
                self._tags = dict(TiffImagePlugin.TiffImageFile(file).tag_v2)
                file.seek(0)
                self._prefix = file.read(2)
            self._read_layout()
        except UNDECODABLE as error:
            raise ImageError(
                f"The picture '{path}' is too large to be decoded at once, and is not a TIFF.",
                "Save it as a tiled TIFF, which is read in parts, or scale it down.",
            ) from error
        self._require_parts()

    def _read_layout(self) -> None:
        tags = self._tags
        self.width, self.height = int(tags[_WIDTH]), int(tags[_HEIGHT])
        self._is_tiled = _TILES in tags
        if self._is_tiled:
            offsets, lengths = tags[_TILES], tags[_TILE_BYTES]
            self._block = int(tags[_TILE_WIDTH]), int(tags[_TILE_HEIGHT])
        else:
            offsets, lengths = tags[_STRIPS], tags[_STRIP_BYTES]
            self._block = self.width, min(int(tags.get(_ROWS_PER_STRIP, self.height)), self.height)
        self._offsets, self._lengths = (tuple(map(int, each)) for each in (offsets, lengths))
        self._across = -(-self.width // self._block[0])
        self._blocks = self._across * -(-self.height // self._block[1])
        # The picture is reduced in bands: a band has at least one row of blocks, and gives a whole
        # number of reduced rows.
        self._factor = -(-max(self.width, self.height) // _LONGEST_SIDE)
        self._step = self._factor * -(-self._block[1] // self._factor)
        self._depths = set(tags.get(_DEPTH, (1,)))

    def _require_parts(self) -> None:
        """Check that the blocks of the file can be read on their own; raises ImageError."""
        counts = {len(self._offsets), len(self._lengths), self._blocks}
        oddities = {
            "it is stored rotated or mirrored": self._tags.get(_ORIENTATION, 1) != 1,
            "its colors are stored in separate planes": self._tags.get(_PLANAR, 1) != 1,
            "its samples do not have 8 bits": self._depths != {8},
            "it consists of a single block": math.prod(self._block) > MAX_PIXELS,
            "its rows are too long": self.width * self._step > 2 * MAX_PIXELS,
            "its blocks are not all listed": len(counts) > 1 or self._blocks < 1,
        }
        for said in (said for said, is_so in oddities.items() if is_so):
            raise ImageError(
                f"The picture '{self._path}' is {self.width}x{self.height} and cannot be read in "
                f"parts: {said}.",
                "Save it upright as a tiled TIFF of 8 bits, or scale it down.",
            )

    def region(self, left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
        """Return a part as uint8 ``[bottom - top, right - left, C]``; raises ImageError."""
        area = (bottom - top) * (right - left)
        if area > MAX_PIXELS:
            raise ImageError(
                f"With this --tile, one row of tiles of '{self._path}' has {area / 1e6:.0f} "
                f"megapixels; at most {MAX_PIXELS / 1e6:.0f} are read at a time.",
                "Choose a smaller --tile.",
            )
        return self._part(left, top, right, bottom)

    def _part(self, left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
        pixels = np.empty((bottom - top, right - left, self._channels), np.uint8)
        wide, high = self._block
        with self._path.open("rb") as file:
            for row in range(top // high, -(-bottom // high)):
                for column in range(left // wide, -(-right // wide)):
                    x, y = column * wide, row * high
                    block = self._decoded(file, row * self._across + column, self.height - y)
                    x1, y1 = max(left, x), max(top, y)
                    x2 = min(right, x + block.shape[1])
                    y2 = min(bottom, y + block.shape[0])
                    pixels[y1 - top : y2 - top, x1 - left : x2 - left] = block[
                        y1 - y : y2 - y, x1 - x : x2 - x
                    ]
        return pixels

    def reduced(self) -> NDArray[np.uint8]:
        """Return the whole picture, scaled down by a whole number; raises ImageError."""
        bands = []
        for top in range(0, self.height, self._step):
            band = self._part(0, top, self.width, min(self.height, top + self._step))
            plain = band[..., 0] if self._channels == 1 else band
            small = np.asarray(Image.fromarray(plain).reduce(self._factor))
            bands.append(small.reshape(*small.shape[:2], self._channels))
        return np.concatenate(bands)

    def _decoded(self, file: Any, index: int, rows_left: int) -> NDArray[np.uint8]:
        wide, high = self._block
        # A tile that extends beyond the picture is stored whole; the last strip ends with the
        # picture.
        rows = high if self._is_tiled else min(high, rows_left)
        try:
            file.seek(self._offsets[index])
            # A damaged length may be larger than the memory.
            content = file.read(min(self._lengths[index], os.fstat(file.fileno()).st_size))
            tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=self._prefix)
            for tag in _COPIED:
                if tag in self._tags:
                    tags[tag] = self._tags[tag]
            tags[_WIDTH], tags[_HEIGHT], tags[_ROWS_PER_STRIP] = wide, rows, rows
            tags[_STRIPS], tags[_STRIP_BYTES] = 0, len(content)
            block = io.BytesIO()
            tags.save(block)
        except UNDECODABLE as error:
            raise ImageError(
                f"Block {index} of the picture '{self._path}' cannot be read: {error}.",
                "Save or download it again.",
            ) from error
        pixels = load_image(block.getvalue() + content, self._channels)
        if pixels.shape[:2] != (rows, wide):
            raise ImageError(
                f"Block {index} of the picture '{self._path}' does not have {wide}x{rows} pixels.",
                "Save or download it again.",
            )
        return pixels
