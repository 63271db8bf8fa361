"""The detections in a picture, and their conversion to other tools' forms."""

from __future__ import annotations

import colorsys
import itertools
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from effdet_deploy.detection.fonts import Lettering
from effdet_deploy.detection.images import load_image
from effdet_deploy.errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.detection.fonts import Font
    from effdet_deploy.detection.images import ImageSource

    Color = tuple[int, int, int]

# Steps by the golden ratio spread the hues of neighboring classes as far apart as possible.
_HUE_STEP = 0.61803398875
_COCO_DECIMALS = 3


@dataclass(frozen=True, eq=False)
class Detections:
    """The detections of one picture, best score first.

    Attributes:
        boxes: float32 ``[n,4]`` xyxy in pixels of the original picture, inside it.
        scores: float32 ``[n]`` in 0-1.
        labels: int ``[n]``, 0-based class indices.
        names: the display name of every class the model knows, by class index.
        category_ids: the COCO ``category_id`` of every class, by class index.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    category_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.scores)

    def __str__(self) -> str:
        if not len(self):
            return "nothing"
        counted = Counter(self.names[label] for label in self.labels)
        return ", ".join(
            f"{name} x{count}" if count > 1 else name for name, count in counted.most_common()
        )

    def only(self, labels: Collection[int]) -> Detections:
        """Return only the detections of these class indices, in their order."""
        kept = np.isin(self.labels, list(labels))
        return replace(
            self, boxes=self.boxes[kept], scores=self.scores[kept], labels=self.labels[kept]
        )

    def resized(self, before: Sequence[int], after: Sequence[int]) -> Detections:
        """Map the detections to a resized picture; both sizes are (height, width)."""
        down, across = (new / old for new, old in zip(after, before, strict=True))
        return replace(self, boxes=self.boxes * np.array([across, down] * 2, np.float32))

    def to_json(self) -> list[dict[str, Any]]:
        """Return one plain dict per detection: box (xyxy), score, label, name, category_id."""
        return [
            {
                "box": box,
                "score": score,
                "label": label,
                "name": self.names[label],
                "category_id": self.category_ids[label],
            }
            for box, score, label in self._rows()
        ]

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Return COCO results: image_id, category_id, bbox (x, y, width, height) and score."""
        return [
            {
                "image_id": image_id,
                "category_id": self.category_ids[label],
                "bbox": [round(each, _COCO_DECIMALS) for each in (x1, y1, x2 - x1, y2 - y1)],
                "score": score,
            }
            for (x1, y1, x2, y2), score, label in self._rows()
        ]

    def to_supervision(self) -> Any:
        """Return a ``supervision.Detections`` with the class names in its data.

        Raises:
            MissingPackageError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingPackageError("supervision", "converting to supervision") from error
        return supervision.Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.labels.astype(int),
            data={"class_name": np.array([self.names[label] for label in self.labels], dtype=str)},
        )

    def draw(self, image: ImageSource, font: Path | None = None) -> Image.Image:
        """Draw the boxes with class, score and a color per class on a copy of ``image``.

        Lines and letters grow with the picture. ``image`` is anything that ``load_image`` reads;
        ``font`` is a file that is tried before Pillow's own font and the installed ones. Characters
        that no font has are escaped.

        Raises:
            DataError: ``font`` is not a font.
        """
        canvas = Image.fromarray(load_image(image))
        draw = ImageDraw.Draw(canvas)
        extent = max(canvas.size)
        line = max(2, round(extent / 320))
        lettering = Lettering(max(11, round(extent / 45)), font)
        # The best detection is drawn last, on top; labels are drawn above all boxes.
        rows = [row for row in self._rows() if row[0][0] < row[0][2] and row[0][1] < row[0][3]]
        for box, _, label in reversed(rows):
            draw.rounded_rectangle(box, radius=2 * line, outline=class_color(label), width=line)
        for box, score, label in reversed(rows):
            text = f"{self.names[label]} {score:.0%}"
            _draw_chip(draw, box, text, class_color(label), lettering)
        return canvas

    def _rows(self) -> list[tuple[list[float], float, int]]:
        return list(
            zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
        )


def class_color(label: int) -> Color:
    """Return the RGB color of a class: bright, and far from that of neighboring classes."""
    turn = (0.6 + label * _HUE_STEP) % 1
    # Three levels of brightness distinguish classes with the same hue.
    red, green, blue = colorsys.hsv_to_rgb(turn, 0.85, (0.95, 0.8, 0.65)[label % 3])
    return round(red * 255), round(green * 255), round(blue * 255)


def _draw_chip(
    draw: ImageDraw.ImageDraw, box: list[float], text: str, color: Color, lettering: Lettering
) -> None:
    """Draw the label above the box, or inside if there is no room, but always in the picture."""
    runs = lettering.runs(text)
    starts = [0.0, *itertools.accumulate(font.getlength(part) for part, font in runs)]
    left = draw.textbbox((0, 0), runs[0][0], font=runs[0][1])[0]
    right = draw.textbbox((starts[-2], 0), runs[-1][0], font=runs[-1][1])[2]
    # Every label's height includes capitals and descenders, so that all labels are equally high.
    _, top, _, bottom = draw.textbbox((0, 0), "Ay", font=lettering.main)
    pad = max(2, round((bottom - top) * 0.25))
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x = max(0, min(box[0], draw.im.size[0] - width))
    y = box[1] - height if box[1] >= height else box[1]
    draw.rounded_rectangle((x, y, x + width, y + height), radius=pad, fill=color)
    # Perceived brightness, with the weights of Rec. 709.
    brightness = np.dot(color, (0.2126, 0.7152, 0.0722)) / 255
    ink = (0, 0, 0) if brightness > 0.45 else (255, 255, 255)
    for start, (part, font) in zip(starts, runs, strict=False):
        # Parts in different fonts share a baseline, so a font with a smaller ascent starts lower.
        rise = _ascent(lettering.main) - _ascent(font)
        draw.text((x + pad - left + start, y + pad - top + rise), part, fill=ink, font=font)


def _ascent(font: Font) -> int:
    return font.getmetrics()[0] if isinstance(font, ImageFont.FreeTypeFont) else 0
