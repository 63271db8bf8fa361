"""What the layers of an ONNX file give, when they are asked."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.artifact.modelfile import read_spec
from effdet_deploy.detection.letterbox import to_input
from effdet_deploy.onnxgraph.layers import read_layers, with_layers
from effdet_deploy.runtimes import load_runtime
from effdet_deploy.runtimes.adapter import run_images

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import DetectorSpec


class GraphLayers:
    """The layers of an ONNX file, as ONNX Runtime computes them on the CPU.

    Args:
        path: an ONNX file of ours.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.spec: DetectorSpec = read_spec(path, "onnx")
        self.layers = read_layers(path)
        self._by_name = {each.name: each for each in self.layers}

    @property
    def names(self) -> set[str]:
        """The layers that can be read."""
        return set(self._by_name)

    def read(
        self, names: Sequence[str], pictures: Sequence[NDArray[np.uint8]]
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield what the named layers give for each picture, by name."""
        wanted = {name: self._by_name[name] for name in names}
        images = self.spec.batch.minimum
        with (
            with_layers(self._path, self.spec, wanted.values()) as copy,
            closing(load_runtime(copy, backend="onnxruntime", device="cpu")) as runtime,
        ):
            for picture in pictures:
                batch = np.repeat(picture[np.newaxis], images, axis=0)
                values = run_images(runtime, to_input(batch, self.spec.input))
                yield {
                    name: _first_image(values[each.value], images) for name, each in wanted.items()
                }


def _first_image(value: NDArray[Any], images: int) -> NDArray[Any]:
    """Return what belongs to the first image; one table of all has the rows of each in turn."""
    if value.ndim == 2 and len(value) > images:
        return value[np.newaxis, : len(value) // images]
    return value[:1]
