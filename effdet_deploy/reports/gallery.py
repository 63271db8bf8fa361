"""The pictures of a comparison with the boxes of reference and candidate, worst picture first."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from effdet_deploy.detection.images import load_image
from effdet_deploy.reports.comparison import class_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.detection.pictures import Pictures
    from effdet_deploy.diagnosis.comparing_files import Examined
    from effdet_deploy.parity.matching import ComparedImage

SHOWN = 12
"""The number of pictures shown per candidate."""
DRAWN = 15
"""At most this many boxes of a kind are drawn, best scores first: more would hide the picture."""
_MAX_SIDE = 800
_MIN_SIDE = 320
_QUALITY = 82


@dataclass(frozen=True)
class Box:
    """A box in pixels of its picture: kind, left, top, width and height, and a description."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass(frozen=True)
class Shown:
    """A picture of the page, with its boxes as lines that are sharp at any size."""

    name: str
    uri: str
    image: ComparedImage
    boxes: tuple[Box, ...]


def worst_first(examined: Examined) -> list[ComparedImage]:
    """Return the pictures with most differences first.

    Pictures are ordered by the sum of scores of unpaired detections, and then by the largest score
    difference of pairs.
    """

    def agreement(image: ComparedImage) -> tuple[float, float]:
        missed = image.reference.scores[image.matching.missed]
        extra = image.candidate.scores[image.matching.extra]
        unpaired = float(np.nansum(missed) + np.nansum(extra))
        return -unpaired, -float(np.nan_to_num(image.matching.score_difference))

    return sorted(examined.comparison.images, key=agreement)


def gallery(examined: Examined, pictures: Pictures, uris: dict[int, str]) -> list[Shown]:
    """Return the worst pictures of a candidate.

    Args:
        examined: the candidate.
        pictures: all pictures of the comparison.
        uris: data URIs by the index of the picture; this function adds those that are missing, so
            that all candidates share them.
    """
    shown = []
    for image in worst_first(examined)[:SHOWN]:
        if image.index not in uris:
            uris[image.index] = data_uri(load_image(pictures.sources[image.index]))
        boxes = tuple(_boxes(image, examined.comparison.candidate))
        shown.append(Shown(pictures.names[image.index], uris[image.index], image, boxes))
    return shown


def data_uri(picture: NDArray[np.uint8]) -> str:
    """Return an RGB picture as a JPEG data URI, scaled to a size that suits a page."""
    image = Image.fromarray(picture)
    longest = max(image.size)
    wanted = min(max(longest, _MIN_SIDE), _MAX_SIDE)
    if wanted != longest:
        width, height = (max(1, round(side * wanted / longest)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _boxes(image: ComparedImage, spec: DetectorSpec) -> Iterator[Box]:
    matching, limits = image.matching, [*image.size[::-1], *image.size[::-1]]
    for kind, says, rows in (
        ("pair", "both", image.reference.take(matching.pairs[:, 0])),
        ("missed", "reference only", image.reference.take(matching.missed)),
        ("extra", "candidate only", image.candidate.take(matching.extra)),
    ):
        for row in np.argsort(-rows.scores, kind="stable")[:DRAWN].tolist():
            x1, y1, x2, y2 = np.clip(np.nan_to_num(rows.boxes[row]), 0, limits).tolist()
            text = f"{says}: {class_name(spec, int(rows.classes[row]))} {rows.scores[row]:.3f}"
            yield Box(kind, x1, y1, x2 - x1, y2 - y1, text)
