"""The names of classes that nobody named: COCO's for a model of 90 classes, otherwise numbers."""

from __future__ import annotations

import pytest

from effdet_deploy.artifact.classes import class_specs
from effdet_deploy.artifact.spec import ClassSpec
from effdet_deploy.errors import DataError

COCO_CATEGORIES = 80


def test_ninety_classes_get_the_names_and_category_ids_of_coco() -> None:
    """COCO has 80 categories with ids from 1 to 90; an id without a category is called unused."""
    classes = class_specs(90)
    named = [each for each in classes if not each.name.startswith("unused")]
    assert len(named) == COCO_CATEGORIES
    assert classes[0] == ClassSpec("person", 1)
    assert classes[16] == ClassSpec("cat", 17)
    assert classes[89] == ClassSpec("toothbrush", 90)


def test_other_classes_are_numbered_with_ids_from_one() -> None:
    assert class_specs(2) == (ClassSpec("class 0", 1), ClassSpec("class 1", 2))


def test_fewer_names_than_classes_are_refused() -> None:
    with pytest.raises(DataError, match="2 labels for a model of 3 classes"):
        class_specs(3, ["a", "b"])
