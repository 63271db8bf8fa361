"""The names of classes and their COCO category ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effdet_deploy.artifact.spec import ClassSpec
from effdet_deploy.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

COCO_SLOTS = 90
"""COCO numbers its 80 categories from 1 to 90; ten numbers are unused."""

_COCO_NAMES = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus", 7: "train",
    8: "truck", 9: "boat", 10: "traffic light", 11: "fire hydrant", 13: "stop sign",
    14: "parking meter", 15: "bench", 16: "bird", 17: "cat", 18: "dog", 19: "horse", 20: "sheep",
    21: "cow", 22: "elephant", 23: "bear", 24: "zebra", 25: "giraffe", 27: "backpack",
    28: "umbrella", 31: "handbag", 32: "tie", 33: "suitcase", 34: "frisbee", 35: "skis",
    36: "snowboard", 37: "sports ball", 38: "kite", 39: "baseball bat", 40: "baseball glove",
    41: "skateboard", 42: "surfboard", 43: "tennis racket", 44: "bottle", 46: "wine glass",
    47: "cup", 48: "fork", 49: "knife", 50: "spoon", 51: "bowl", 52: "banana", 53: "apple",
    54: "sandwich", 55: "orange", 56: "broccoli", 57: "carrot", 58: "hot dog", 59: "pizza",
    60: "donut", 61: "cake", 62: "chair", 63: "couch", 64: "potted plant", 65: "bed",
    67: "dining table", 70: "toilet", 72: "tv", 73: "laptop", 74: "mouse", 75: "remote",
    76: "keyboard", 77: "cell phone", 78: "microwave", 79: "oven", 80: "toaster", 81: "sink",
    82: "refrigerator", 84: "book", 85: "clock", 86: "vase", 87: "scissors", 88: "teddy bear",
    89: "hair drier", 90: "toothbrush",
}  # fmt: skip


def class_specs(
    num_classes: int, names: Sequence[str] | None = None, category_ids: Sequence[int] | None = None
) -> tuple[ClassSpec, ...]:
    """Name every class index of a model.

    Without ``names``, a model of 90 classes gets COCO's names; the classes of any other model are
    called ``class 0``, ``class 1``, … Without ``category_ids``, the id is the index plus one, as
    effdet counts.

    Raises:
        DataError: there are more or fewer names or ids than classes.
    """
    if names is None and num_classes == COCO_SLOTS:
        slots = range(1, COCO_SLOTS + 1)
        names = [_COCO_NAMES.get(slot, f"unused {slot}") for slot in slots]
    elif names is None:
        names = [f"class {index}" for index in range(num_classes)]
    if category_ids is None:
        category_ids = range(1, num_classes + 1)
    for given, what in ((names, "labels"), (category_ids, "category ids")):
        if len(given) != num_classes:
            raise DataError(
                f"There are {len(given)} {what} for a model of {num_classes} classes.",
                "Give one per class, in the order of the model's outputs.",
            )
    return tuple(ClassSpec(*pair) for pair in zip(names, category_ids, strict=True))
