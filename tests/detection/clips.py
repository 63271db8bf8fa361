"""Videos for tests: a bright square that moves, encoded here."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def write_clip(
    path: Path,
    count: int,
    rate: Fraction | int = 25,
    size: tuple[int, int] = (96, 64),
    times: Sequence[float] = (),
) -> Path:
    """Write ``count`` frames of ``size`` (width, height), at ``times`` in seconds if given."""
    import av

    width, height = size
    clock = Fraction(1, 1000) if times else 1 / Fraction(rate)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = clock
        for index in range(count):
            pixels = np.full((height, width, 3), 40, np.uint8)
            left = 5 * index % (width - 20)
            pixels[10:40, left : left + 20] = (250, 200, index * 3 % 250)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = round(times[index] * 1000) if times else index
            frame.time_base = clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
