"""The pictures of a comparison with both sets of boxes, the worst first."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from effdet_deploy.detection.images import load_image
from effdet_deploy.reports.comparison_table import class_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.diagnosis.side_by_side import Examined
    from effdet_deploy.evaluation.pictures import Pictures
    from effdet_deploy.parity.comparison import ComparedImage
    from effdet_deploy.parity.rows import Rows

SHOWN = 12
"""Pictures of each candidate."""
DRAWN = 15
"""Boxes of each kind in a picture, the best scores first: a hundred would hide it."""
_MAX_SIDE = 800
_MIN_SIDE = 320
_QUALITY = 82


def worst_first(examined: Examined) -> list[ComparedImage]:
    """Return the pictures with most disagreement first.

    Disagreement is the score that unpaired detections add up to, and then the largest difference
    of scores among pairs.
    """
    return sorted(examined.comparison.images, key=lambda each: (-_unpaired(each), -_spread(each)))


def _unpaired(image: ComparedImage) -> float:
    missed = image.reference.scores[image.matching.missed]
    extra = image.candidate.scores[image.matching.extra]
    return float(np.nansum(missed) + np.nansum(extra))


def _spread(image: ComparedImage) -> float:
    return float(np.nan_to_num(image.matching.score_difference))


def gallery(examined: Examined, pictures: Pictures, uris: dict[int, str]) -> str:
    """Return a figure for each of the worst pictures.

    Args:
        examined: the candidate.
        pictures: all pictures of the comparison.
        uris: data URIs by picture that were made for other candidates; new ones are added.
    """
    return "".join(
        _figure(image, examined, pictures, uris) for image in worst_first(examined)[:SHOWN]
    )


def _figure(
    image: ComparedImage, examined: Examined, pictures: Pictures, uris: dict[int, str]
) -> str:
    if image.index not in uris:
        uris[image.index] = data_uri(load_image(pictures.sources[image.index]))
    name = escape(pictures.names[image.index])
    counts = (
        f"{len(image.matching.pairs)} matched, {len(image.matching.missed)} only in the reference, "
        f"{len(image.matching.extra)} only here"
    )
    return (
        f'<figure><div class="picture"><img src="{uris[image.index]}" alt="{name}" '
        f'loading="lazy">{_overlay(image, examined.comparison.candidate)}</div>'
        f"<figcaption><b>{name}</b> {counts}</figcaption></figure>"
    )


def data_uri(picture: NDArray[np.uint8]) -> str:
    """Return an RGB picture as a JPEG inside a URI, scaled to a size that is good to look at."""
    image = Image.fromarray(picture)
    longest = max(image.size)
    wanted = min(max(longest, _MIN_SIDE), _MAX_SIDE)
    if wanted != longest:
        size = tuple(max(1, round(side * wanted / longest)) for side in image.size)
        image = image.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _overlay(image: ComparedImage, spec: DetectorSpec) -> str:
    """Return the boxes as SVG in the pixels of the picture: lines stay sharp at any size."""
    height, width = image.size
    paired = image.reference.take(image.matching.pairs[:, 0])
    kinds = (
        ("pair", "both", paired),
        ("missed", "reference only", image.reference.take(image.matching.missed)),
        ("extra", "candidate only", image.candidate.take(image.matching.extra)),
    )
    boxes = "".join(_boxes(rows, kind, says, spec, image.size) for kind, says, rows in kinds)
    return f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none">{boxes}</svg>'


def _boxes(rows: Rows, kind: str, says: str, spec: DetectorSpec, size: tuple[int, int]) -> str:
    drawn = ""
    best = np.argsort(-rows.scores, kind="stable")[:DRAWN]
    limits = [size[1], size[0], size[1], size[0]]
    for row in best.tolist():
        x1, y1, x2, y2 = np.clip(np.nan_to_num(rows.boxes[row]), 0, limits).tolist()
        text = f"{says}: {class_name(spec, int(rows.classes[row]))} {rows.scores[row]:.3f}"
        drawn += (
            f'<rect class="{kind}" x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" '
            f'height="{y2 - y1:.1f}"><title>{escape(text)}</title></rect>'
        )
    return drawn
