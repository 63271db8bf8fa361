"""Signs that annotations do not belong to the pictures, which would make a measured mAP useless.

Boxes that were turned with EXIF, scaled with the picture, or written in another form give an mAP
near zero that looks like a real result.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from effdet_deploy.artifact.labels import number_of
from effdet_deploy.detection.images import size_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from effdet_deploy.evaluation.cocoset import CocoSet

    Box = list[float]
    Size = tuple[int, int]

_BULK = 0.05
"""The share of boxes from which an oddity counts as a property of the whole set."""
_NEARLY_ALL = 0.95
"""The share of boxes from which all boxes of the set count as written in another form."""
_FRACTION_SLACK = 1e-3
_SLACK = 1.0
"""Pixels by which annotation tools let boxes reach over a border."""
_EXAMPLE = "for example"


def doubts_about(dataset: CocoSet) -> tuple[str, ...]:
    """Return a sentence per sign that boxes and pictures do not belong together.

    Pictures are opened for their size and orientation; their pixels are not decoded.
    """
    opened = {number: size_of(path) for number, path in dataset.paths.items()}
    known = {number: each for number, each in opened.items() if each is not None}
    sizes = {number: size for number, (size, _) in known.items()}
    turned = {number for number, (_, is_turned) in known.items() if is_turned}
    return (*_about_sizes(dataset, sizes, turned), *_about_boxes(dataset, sizes))


def _about_sizes(dataset: CocoSet, sizes: dict[int, Size], turned: set[int]) -> list[str]:
    wrong: dict[str, list[str]] = defaultdict(list)
    for each in dataset.document["images"]:
        said = (_side(each.get("width")), _side(each.get("height")))
        real = sizes.get(each["id"], said)
        if said == real or 0 in said:
            continue
        if said == real[::-1] and each["id"] in turned:
            kind = "are annotated on their side: their EXIF orientation was not applied"
        elif said == real[::-1]:
            kind = "have width and height swapped in the annotations"
        elif abs(said[0] * real[1] - said[1] * real[0]) <= max(*said, *real):
            kind = "were scaled after they were annotated"
        else:
            kind = "have another size than the annotations say"
        wrong[kind].append(
            f"image {each['id']} is {real[0]}x{real[1]}, annotated as {said[0]}x{said[1]}"
        )
    total = len(dataset)
    return [
        f"{len(found)} of {total} pictures {kind}; {_EXAMPLE} {found[0]}."
        for kind, found in wrong.items()
    ]


def _side(said: object) -> int:
    """Return a width or height; 0 if the annotations do not state it."""
    try:
        return max(0, number_of(said))
    except ValueError:
        return 0


def _about_boxes(dataset: CocoSet, sizes: dict[int, Size]) -> list[str]:
    boxes = [
        (each["bbox"], sizes[each["image_id"]], each)
        for each in dataset.document["annotations"]
        if each["image_id"] in sizes
    ]
    if not boxes:
        return []

    def found(test: Callable[[Box, Size], bool]) -> list[dict[str, Any]]:
        return [each for box, size, each in boxes if test(box, size)]

    share = len(boxes)
    fractions = found(lambda box, _: max(box) <= 1 + _FRACTION_SLACK)
    if len(fractions) > _NEARLY_ALL * share:
        return [
            (
                f"The boxes of {len(fractions)} of {share} annotations lie within 0 to 1: they are "
                f"fractions of the picture, but COCO uses pixels; {_EXAMPLE} {_example(fractions)}."
            )
        ]
    outside = found(_reaches_out)
    corners = found(
        lambda box, size: (
            box[0] < box[2] <= size[0] + _SLACK and box[1] < box[3] <= size[1] + _SLACK
        )
    )
    tiny = found(lambda box, _: min(box[2], box[3]) < 1)
    said = []
    if len(outside) > _BULK * share:
        if len(corners) > _NEARLY_ALL * share:
            what = "look like corners (x1, y1, x2, y2), but COCO uses x, y, width and height"
        else:
            what = "reach out of their pictures"
        said.append(f"{len(outside)} of {share} boxes {what}; {_EXAMPLE} {_example(outside)}.")
    if len(tiny) > _BULK * share:
        said.append(
            f"{len(tiny)} of {share} boxes are smaller than a pixel; {_EXAMPLE} {_example(tiny)}."
        )
    return said


def _reaches_out(box: Box, size: Size) -> bool:
    x, y, width, height = box
    beyond = max(x + width - size[0], y + height - size[1], -x, -y)
    return beyond > _SLACK


def _example(annotations: list[dict[str, Any]]) -> str:
    first = annotations[0]
    return f"annotation {first['source_id']}, {first['bbox']} in image {first['image_id']}"
