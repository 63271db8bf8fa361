"""The images that a verification runs on, and how they are put into batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effdet_deploy.detection.images import load_image
from effdet_deploy.detection.letterbox import letterbox
from effdet_deploy.evaluation.cocoset import find_pictures
from effdet_deploy.synthetic import structured_pictures

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import BatchSpec, InputSpec

SEED = 20_260
"""Of the structured pictures; no example that a graph is traced with may use it."""
COUNT = 4
MAX_COUNT = 8
"""A larger batch repeats its pictures: eager PyTorch takes its time."""
MAX_FOLDER_IMAGES = 64
"""Of a folder, the first so many by name are used; of annotations, the first so many."""


def verification_images(
    spec: InputSpec, folder: str | Path | None = None, batch: BatchSpec | None = None
) -> list[NDArray[np.uint8]]:
    """Return letterboxed RGB images uint8 ``[H,W,3]`` for :func:`~.verify.verify`.

    They come from ``folder``, which may be COCO annotations, or are four seeded structured
    pictures, up to :data:`MAX_COUNT` for a larger batch. One image alone cannot show that a graph
    depends on its input at all, so a picture joins it.

    Raises:
        DataError: the annotations are unusable.
        ImageError: ``folder`` holds no image, or one that cannot be read.
    """
    images = []
    if folder is not None:
        images = [
            letterbox(load_image(path), spec.height, spec.width, spec.fill)[0]
            for path in find_pictures(folder)[:MAX_FOLDER_IMAGES]
        ]
    largest = batch.maximum if batch else 1
    wanted = 2 if images else max(COUNT, min(largest, MAX_COUNT))
    missing = max(0, wanted - len(images))
    return images + list(structured_pictures(missing, spec.height, spec.width, SEED))


def plan_batches(count: int, batch: BatchSpec) -> list[list[int]]:
    """Return the image indices of every run: each image at the largest and at the smallest size.

    A run that is not full starts over with the first images.
    """
    return [
        [index % count for index in range(start, start + size)]
        for size in dict.fromkeys((batch.maximum, batch.minimum))
        for start in range(0, count, size)
    ]
