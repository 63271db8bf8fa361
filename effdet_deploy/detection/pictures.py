"""Pictures to verify, calibrate and compare detectors on: the user's or generated ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from effdet_deploy.artifact.placement import shown_input, taken_input
from effdet_deploy.detection.images import load_image
from effdet_deploy.detection.letterbox import letterbox
from effdet_deploy.detection.pipeline import in_threads
from effdet_deploy.errors import ImageError
from effdet_deploy.runtimes.lanes import usable_cpus
from effdet_deploy.synthetic import structured_pictures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import BatchSpec, InputSpec
    from effdet_deploy.detection.images import ImageSource

SEED = 20_260
"""Seed of generated pictures; no example that a graph is traced with may use it."""
COUNT = 4
MAX_COUNT = 8
"""The most pictures that are generated, because eager PyTorch is slow; a model whose smallest batch
is larger gets the last picture again."""
MAX_FOUND = 64
"""The most pictures of the user that are used for verification."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures that are read when they are needed.

    Attributes:
        names: the names of the pictures in a report.
        sources: anything that :func:`effdet_deploy.detection.images.load_image` reads.
        unreadable: sentences about pictures that were left out.
    """

    names: tuple[str, ...] = ()
    sources: tuple[ImageSource, ...] = ()
    unreadable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.sources)

    def letterboxed(self, spec: InputSpec, count: int | None = None) -> list[NDArray[np.uint8]]:
        """Read all pictures, or the first ``count``, as RGB uint8 ``[H,W,C]``, resized by ``spec``.

        Raises:
            ImageError: a picture cannot be read.
        """
        read = partial(_letterboxed, spec=taken_input(spec))
        return list(in_threads(read, self.sources[:count], len(usable_cpus())))

    def decoded(self, spec: InputSpec) -> Pictures:
        """Return the first :data:`MAX_FOUND` pictures, decoded and letterboxed once.

        Pictures that cannot be read are left out.
        """
        canvases: dict[int, NDArray[np.uint8]] = {}
        unreadable = []
        taken = taken_input(shown_input(spec))

        def read(source: ImageSource) -> NDArray[np.uint8] | ImageError:
            try:
                return _letterboxed(source, taken)
            except ImageError as error:
                return error

        for place, found in enumerate(in_threads(read, self.sources, len(usable_cpus()))):
            if isinstance(found, ImageError):
                unreadable.append(str(found))
            else:
                canvases[place] = found
            if len(canvases) == MAX_FOUND:
                break
        names = tuple(self.names[place] for place in canvases)
        return Pictures(names, tuple(canvases.values()), tuple(unreadable))

    def spread(self, count: int) -> Pictures:
        """Return at most ``count`` of the pictures, evenly spread."""
        step = max(1.0, len(self) / count)
        chosen = [int(index * step) for index in range(min(len(self), count))]
        names, sources = self.names, self.sources
        return Pictures(tuple(names[i] for i in chosen), tuple(sources[i] for i in chosen))


def _letterboxed(source: ImageSource, spec: InputSpec) -> NDArray[np.uint8]:
    return letterbox(load_image(source, spec.channels), spec)[0]


def own_pictures(spec: InputSpec, count: int = COUNT) -> Pictures:
    """Generate ``count`` structured pictures in the size of ``spec``, always the same ones."""
    made = structured_pictures(count, *spec.taken_size, SEED, spec.channels)
    return Pictures(tuple(f"structured picture {index}" for index in range(count)), tuple(made))


def verification_images(
    spec: InputSpec, pictures: Pictures | None = None, batch: BatchSpec | None = None
) -> list[NDArray[np.uint8]]:
    """Return the letterboxed RGB images uint8 ``[H,W,C]`` on which an export is verified.

    They are the first :data:`MAX_FOUND` of ``pictures``; without pictures they are four generated
    ones, or up to :data:`MAX_COUNT` for a larger batch. A single image gets a second one, because
    one image cannot show that a graph depends on its input at all.

    Raises:
        ImageError: a picture cannot be read.
    """
    spec = shown_input(spec)
    found = pictures.letterboxed(spec, MAX_FOUND) if pictures is not None else []
    largest = batch.maximum if batch else 1
    wanted = 2 if found else max(COUNT, min(largest, MAX_COUNT))
    return found + own_pictures(spec, max(0, wanted - len(found))).letterboxed(spec)
