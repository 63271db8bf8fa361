"""The layers of our ONNX files: their names, and what they give when they are asked."""

from __future__ import annotations

import contextlib
import math
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from effdet_deploy.artifact.modelfile import read_spec
from effdet_deploy.detection.letterbox import to_input
from effdet_deploy.errors import ModelFileError
from effdet_deploy.onnxgraph.heads import add_head_outputs
from effdet_deploy.runtimes import load_runtime
from effdet_deploy.runtimes.adapter import run_images

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import DetectorSpec

_ROLE = re.compile(r"(?P<module>.+)\.(?P<role>[a-z0-9]+?)(?:_(?P<index>\d+))?")
_POSTPROCESS = "postprocess."
_PREPROCESS = "preprocess."
_MOVES = ("transpose", "reshape", "concat")
_FLOATS = {onnx.TensorProto.FLOAT: 4, onnx.TensorProto.FLOAT16: 2}
"""Element types that are compared, and the bytes of each."""


@dataclass(frozen=True)
class GraphLayer:
    """A node that is named by the module it comes from, and its first output.

    Attributes:
        name: of the node, such as ``fpn.cell.1.fnode.3.after_combine.conv.conv_pw.conv``.
        module: the module path: the name without its last part.
        operator: the role in the module: the ONNX operator in lower case.
        value: the tensor that it gives.
        element_type: of that tensor, as ONNX numbers types.
        bytes: of that tensor for one image; 0 where the shape is unknown.
    """

    name: str
    module: str
    operator: str
    value: str
    element_type: int
    bytes: int

    @property
    def computes(self) -> bool:
        """Whether it makes numbers, and does not only move them."""
        return self.operator not in _MOVES

    @property
    def is_postprocess(self) -> bool:
        """Whether it stands behind the raw heads."""
        return self.name.startswith(_POSTPROCESS)


def read_layers(path: Path) -> tuple[GraphLayer, ...]:
    """Return the layers of an ONNX file of ours that give floating-point numbers, in graph order.

    Preprocessing is left out: scale and channel order move between it and the first convolution.

    Raises:
        ModelFileError: no node is named as our exporter names them.
    """
    model = onnx.load(path, load_external_data=False)
    described = _types(model)
    found = []
    for node in model.graph.node:
        match = _ROLE.fullmatch(node.name)
        kind, size = described.get(node.output[0], (0, 0))
        named = match is not None and match["role"] == node.op_type.lower()
        if match and named and kind in _FLOATS and not node.name.startswith(_PREPROCESS):
            layer = GraphLayer(
                node.name, match["module"], match["role"], node.output[0], kind, size
            )
            found.append(layer)
    if not found:
        raise ModelFileError(
            f"No node of '{path.name}' is named by the module it comes from.",
            "Only files written by effdet-deploy can be compared layer by layer.",
        )
    return tuple(found)


def _types(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """Map every tensor to its element type and its bytes for one image."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {}
    for each in (*inferred.value_info, *inferred.output):
        kind = each.type.tensor_type.elem_type
        sides = (side.dim_value or 1 for side in each.type.tensor_type.shape.dim)
        types[each.name] = (kind, math.prod(sides) * _FLOATS.get(kind, 1))
    return types


class GraphLayers:
    """The layers of an ONNX file, as ONNX Runtime computes them on the CPU.

    A tensor that is an output cannot be fused away, so fused INT8 kernels give way to what the
    graph says: quantise, dequantise, convolve.

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
        with beside_data(self._path, self.spec) as directory:
            copy = directory / self._path.name
            _add_outputs(self._path, copy, wanted.values())
            runtime = load_runtime(copy, backend="onnxruntime", device="cpu")
            try:
                images = self.spec.batch.minimum
                for picture in pictures:
                    batch = np.repeat(picture[np.newaxis], images, axis=0)
                    values = run_images(runtime, to_input(batch, self.spec.input))
                    yield {
                        name: _first_image(values[each.value], images)
                        for name, each in wanted.items()
                    }
            finally:
                runtime.close()


def _first_image(value: NDArray[Any], images: int) -> NDArray[Any]:
    """Return what belongs to the first image; one table of all has the rows of each in turn."""
    if value.ndim == 2 and len(value) > images:
        return value[np.newaxis, : len(value) // images]
    return value[:1]


def _add_outputs(source: Path, target: Path, layers: Iterable[GraphLayer]) -> None:
    model = onnx.load(source, load_external_data=False)
    present = {output.name for output in model.graph.output}
    for layer in layers:
        if layer.value not in present:
            info = onnx.helper.make_tensor_value_info(layer.value, layer.element_type, None)
            model.graph.output.append(info)
    target.write_bytes(model.SerializeToString())


@contextlib.contextmanager
def with_heads(path: Path, spec: DetectorSpec) -> Iterator[Path]:
    """Give a temporary copy of an ONNX file of ours that has its raw heads as outputs.

    Raises:
        ModelFileError: the graph holds no nodes named as our exporter names the heads.
    """
    with beside_data(path, spec) as directory:
        copy = directory / path.name
        add_head_outputs(path, copy)
        yield copy


@contextlib.contextmanager
def beside_data(path: Path, spec: DetectorSpec) -> Iterator[Path]:
    """Give a temporary directory that holds the data files of ``path``.

    They are copied: engines refuse links, and the directory of ``path`` may be read-only.
    """
    with tempfile.TemporaryDirectory(prefix="effdet-") as name:
        directory = Path(name)
        for each in spec.external_files:
            shutil.copyfile(path.parent / each.name, directory / each.name)
        yield directory
