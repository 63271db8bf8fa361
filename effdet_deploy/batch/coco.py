"""Conversion of a run's rows to COCO JSON, part by part, so that they need not fit in memory."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.artifact.spec import ClassSpec
from effdet_deploy.batch.places import joined, opened
from effdet_deploy.detection.detections import Detections
from effdet_deploy.detection.formats import writing
from effdet_deploy.detection.naming import Place
from effdet_deploy.detection.writers import Labeled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from effdet_deploy.batch.plan import Plan


def write_coco(output: str, plan: Plan, folder: Path, classes: Sequence[ClassSpec]) -> None:
    """Write a dataset and a list of results in COCO's form, from all parts of a run.

    The id of an image is the number of its row, from 1; pictures with errors are left out.

    Args:
        output: the folder or address of the parts.
        plan: the plan of the run, which is complete.
        folder: where ``detections.coco.json`` and ``detections.coco-results.json`` are written.
        classes: the model's classes.
    """
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    numbers = itertools.count(1)
    with writing(("coco",), folder, classes) as add:
        for part in range(len(plan.counts)):
            with opened(joined(output, plan.part_name(part))) as stream:
                rows = pq.read_table(stream).to_pylist()
            for row in rows:
                number = next(numbers)
                if row["error"] is None:
                    place = Place(row["key"], row["key"], number)
                    size = row["width"], row["height"]
                    found = _detections(row["detections"], classes)
                    add(Labeled(Path(row["key"]), place, size, found))


def _detections(rows: list[dict[str, Any]], classes: Sequence[ClassSpec]) -> Detections:
    labels = np.array([each["class_id"] for each in rows], np.int64)
    unnamed = range(len(classes), int(labels.max(initial=-1)) + 1)
    known = [*classes, *(ClassSpec(str(each), each + 1) for each in unnamed)]
    boxes = [[each[side] for side in ("x1", "y1", "x2", "y2")] for each in rows]
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([each["score"] for each in rows], np.float32),
        labels,
        tuple(each.name for each in known),
        tuple(each.category_id for each in known),
    )
