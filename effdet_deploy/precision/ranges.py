"""What values the tensors of a graph take on real images."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort

from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.detection.letterbox import to_input

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto

    from effdet_deploy.artifact.spec import DetectorSpec

_ERRORS_ONLY = 3


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value that a tensor took; NaN where it held one."""

    low: float
    high: float

    @property
    def magnitude(self) -> float:
        """The largest absolute value."""
        return float(np.maximum(abs(self.low), abs(self.high)))

    def __or__(self, other: Range) -> Range:
        return Range(
            float(np.minimum(self.low, other.low)), float(np.maximum(self.high, other.high))
        )


def scan_ranges(
    model: ModelProto, values: Iterable[str], batches: Iterable[NDArray[Any]]
) -> dict[str, Range]:
    """Run ``model`` on graph inputs and return the range of each of ``values``, float tensors.

    The extremes are taken inside the graph, so that no more memory is held than in a plain run.
    """
    names = list(values)
    session = open_session(_with_extremes(model, names))
    found: dict[str, Range] = {}
    for batch in batches:
        extremes = session.run(None, {INPUT_NAME: batch})
        for index, name in enumerate(names):
            seen = Range(float(extremes[2 * index]), float(extremes[2 * index + 1]))
            found[name] = found[name] | seen if name in found else seen
    return found


def _with_extremes(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """Return a copy whose outputs are the minimum and maximum of each value."""
    edited = deepcopy(model)
    del edited.graph.output[:]
    for index, name in enumerate(names):
        for operator in ("ReduceMin", "ReduceMax"):
            extreme = f"{operator}.{index}"
            edited.graph.node.append(
                onnx.helper.make_node(operator, [name], [extreme], extreme, keepdims=0)
            )
            edited.graph.output.append(
                onnx.helper.make_tensor_value_info(extreme, onnx.TensorProto.FLOAT, [])
            )
    return edited


def with_outputs(model: ModelProto, names: Iterable[str]) -> ModelProto:
    """Return a copy of ``model`` whose outputs are the float32 values ``names``, in order."""
    edited = deepcopy(model)
    del edited.graph.output[:]
    edited.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    return edited


def open_session(model: ModelProto, threads: int | None = None) -> ort.InferenceSession:
    """Load a graph in memory into ONNX Runtime on the CPU."""
    settings = ort.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    if threads is not None:
        settings.intra_op_num_threads = threads
    return ort.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )


def graph_inputs(images: Iterable[NDArray[np.uint8]], spec: DetectorSpec) -> Iterator[NDArray[Any]]:
    """Yield one graph input an image ``[H,W,3]``, repeated up to the smallest batch allowed."""
    for image in images:
        yield to_input(np.repeat(image[None], spec.batch.minimum, axis=0), spec.input)
