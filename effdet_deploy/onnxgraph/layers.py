"""The layers of our ONNX files by their names, and their outputs on pictures."""

from __future__ import annotations

import math
import re
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from effdet_deploy.artifact.modelfile import read_spec
from effdet_deploy.detection.letterbox import to_input
from effdet_deploy.errors import ModelFileError
from effdet_deploy.onnxgraph.raw_heads import beside_data
from effdet_deploy.runtimes import load_runtime
from effdet_deploy.runtimes.adapter import run_images

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import DetectorSpec

_ROLE = re.compile(r"(?P<module>.+)\.(?P<role>[a-z0-9]+?)(?:_(?P<index>\d+))?")
_POSTPROCESS = "postprocess."
_PREPROCESS = "preprocess."
_MOVES = ("transpose", "reshape", "concat")
_MASKS = ("scatterelements",)
"""Operators that mask the scores which an earlier TopK has found. Two runtimes may find different
scores in this TopK, so the outputs of these operators are not compared."""
_FLOATS = {onnx.TensorProto.FLOAT: 4, onnx.TensorProto.FLOAT16: 2}
"""The element types that are compared, with their size in bytes."""


@dataclass(frozen=True)
class GraphLayer:
    """A node that is named after its module, and its first output.

    Attributes:
        name: the node's name, such as ``fpn.cell.1.fnode.3.after_combine.conv.conv_pw.conv``.
        module: the module path, which is the name without its last part.
        operator: the role in the module, which is the ONNX operator in lower case.
        value: the tensor that the node makes.
        inputs: the tensors that it reads.
        element_type: the type of ``value``, as ONNX numbers types.
        bytes: the size of ``value`` for one image; 0 if its shape is unknown.
    """

    name: str
    module: str
    operator: str
    value: str
    inputs: tuple[str, ...]
    element_type: int
    bytes: int

    @property
    def computes(self) -> bool:
        """Whether the node computes numbers, and does not only move them."""
        return self.operator not in _MOVES

    @property
    def is_postprocess(self) -> bool:
        """Whether the node comes after the raw heads."""
        return self.name.startswith(_POSTPROCESS)


class GraphLayers:
    """The layers of an ONNX file, as ONNX Runtime computes them on the CPU.

    Args:
        path: an ONNX file of ours.

    Raises:
        ModelFileError: no node has a name that our exporter gives.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.spec: DetectorSpec = read_spec(path, "onnx")
        self.layers = _read_layers(path)
        self._by_name = {each.name: each for each in self.layers}

    @property
    def names(self) -> set[str]:
        """The names of the layers whose outputs can be read."""
        return set(self._by_name)

    def read(
        self, names: Sequence[str], pictures: Sequence[NDArray[np.uint8]]
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """For every picture, yield the outputs of the named layers, by the layers' names.

        A tensor that is a graph output cannot be fused away, so INT8 kernels are computed as the
        graph says: quantize, dequantize, convolve.
        """
        wanted = {name: self._by_name[name] for name in names}
        model = onnx.load(self._path, load_external_data=False)
        present = {output.name for output in model.graph.output}
        model.graph.output.extend(
            onnx.helper.make_tensor_value_info(each.value, each.element_type, None)
            for each in wanted.values()
            if each.value not in present
        )
        images = self.spec.batch.minimum
        with beside_data(self._path, self.spec) as directory:
            copy = directory / self._path.name
            copy.write_bytes(model.SerializeToString())
            with closing(load_runtime(copy, backend="onnxruntime", device="cpu")) as runtime:
                for picture in pictures:
                    batch = np.repeat(picture[np.newaxis], images, axis=0)
                    values = run_images(runtime, to_input(batch, self.spec.input))
                    yield {
                        name: _first_image(values[each.value], images)
                        for name, each in wanted.items()
                    }


def _read_layers(path: Path) -> tuple[GraphLayer, ...]:
    """Return the layers of an ONNX file of ours that make floating-point numbers, in graph order.

    Preprocessing is left out, since an export may move its scale into the first convolution.
    """
    model = onnx.load(path, load_external_data=False)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    tensors = {
        each.name: each.type.tensor_type for each in (*inferred.value_info, *inferred.output)
    }
    found = []
    for node in model.graph.node:
        match, value = _ROLE.fullmatch(node.name), tensors.get(node.output[0])
        if match is None or match["role"] != node.op_type.lower() or value is None:
            continue
        width = _FLOATS.get(value.elem_type)
        module, role = match["module"], match["role"]
        is_compared = role not in _MASKS and not node.name.startswith(_PREPROCESS)
        if width is not None and is_compared:
            size = math.prod(side.dim_value or 1 for side in value.shape.dim) * width
            found.append(
                GraphLayer(
                    node.name,
                    module,
                    role,
                    node.output[0],
                    tuple(node.input),
                    value.elem_type,
                    size,
                )
            )
    if not found:
        raise ModelFileError(
            f"No node of '{path.name}' is named after the module that it comes from.",
            "Only files written by effdet-deploy can be compared layer by layer.",
        )
    return tuple(found)


def _first_image(value: NDArray[Any], images: int) -> NDArray[Any]:
    """Return the first image's values; a table of all images has the first image's rows on top."""
    if value.ndim == 2 and len(value) > images:
        return value[np.newaxis, : len(value) // images]
    return value[:1]
