"""The images that a verification runs on, and how they are put into batches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from effdet_deploy.errors import DataError
from effdet_deploy.images import letterbox, load_image
from effdet_deploy.pictures import structured_pictures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from effdet_deploy.spec import BatchSpec, InputSpec

SEED = 20_260
"""Of the structured pictures; no example that a graph is traced with may use it."""
COUNT = 4
MAX_FOLDER_IMAGES = 64
"""Of a folder, the first so many by name are used: eager PyTorch takes its time."""
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif"}


def verification_images(
    spec: InputSpec, folder: str | Path | None = None, batch: BatchSpec | None = None
) -> list[NDArray[np.uint8]]:
    """Return letterboxed RGB images uint8 ``[H,W,3]`` for :func:`~.verify.verify`.

    They come from ``folder`` or are four seeded structured pictures, and as many more as fill the
    largest batch. One image alone cannot show that a graph depends on its input at all, so a
    picture joins it.

    Raises:
        DataError: ``folder`` does not exist or holds no image.
        ImageError: one of its images cannot be read.
    """
    images = []
    if folder is not None:
        images = [
            letterbox(load_image(path), spec.height, spec.width, spec.fill)[0]
            for path in _image_paths(Path(folder))
        ]
    wanted = max(2 if images else COUNT, batch.maximum if batch and not images else 0)
    missing = max(0, wanted - len(images))
    return images + list(structured_pictures(missing, spec.height, spec.width, SEED))


def _image_paths(folder: Path) -> list[Path]:
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    paths = [path for path in found if path.suffix.lower() in _SUFFIXES and path.is_file()]
    if not paths:
        problem = "holds no image" if folder.is_dir() else "is not a folder"
        raise DataError(f"'{folder}' {problem}.", "Name a folder with JPEG or PNG files.")
    return paths[:MAX_FOLDER_IMAGES]


def plan_batches(count: int, batch: BatchSpec) -> list[list[int]]:
    """Return the image indices of every run: each image at the largest and at the smallest size.

    A run that is not full starts over with the first images.
    """
    return [
        [index % count for index in range(start, start + size)]
        for size in dict.fromkeys((batch.maximum, batch.minimum))
        for start in range(0, count, size)
    ]
