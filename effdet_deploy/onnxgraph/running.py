"""Running graphs to find the values of their tensors on real images."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort

from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.detection.letterbox import to_input
from effdet_deploy.onnxgraph.index import insert_after

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

    from effdet_deploy.artifact.spec import DetectorSpec

_ERRORS_ONLY = 3


@dataclass(frozen=True)
class Range:
    """The smallest and the largest value of a tensor; NaN if the tensor had NaN."""

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
    """Run ``model`` on ``batches`` and return the ranges of the float tensors named in ``values``.

    The extremes are computed inside the graph, right behind the node that makes a value, so that
    this needs no more memory than a plain run.
    """
    names = list(values)
    edited = deepcopy(model)
    extremes: list[str] = []
    added: dict[str, list[NodeProto]] = {}
    for index, name in enumerate(names):
        for operator in ("ReduceMin", "ReduceMax"):
            extremes.append(f"{operator}.{index}")
            node = onnx.helper.make_node(operator, [name], extremes[-1:], extremes[-1], keepdims=0)
            added.setdefault(name, []).append(node)
    insert_after(edited.graph, added)
    found: dict[str, Range] = {}
    for run in run_graph(edited, extremes, batches):
        for name, low, high in zip(names, run[0::2], run[1::2], strict=True):
            seen = Range(float(low), float(high))
            found[name] = found[name] | seen if name in found else seen
    return found


def run_graph(
    model: ModelProto,
    values: Iterable[str],
    batches: Iterable[NDArray[Any]],
    threads: int | None = None,
) -> Iterator[list[NDArray[np.float32]]]:
    """For every graph input in ``batches``, yield the float32 tensors named in ``values``."""
    edited = deepcopy(model)
    del edited.graph.output[:]
    edited.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in values
    )
    session = open_session(edited, threads)
    for batch in batches:
        yield session.run(None, {INPUT_NAME: batch})


def open_session(model: ModelProto, threads: int | None = None) -> ort.InferenceSession:
    """Load a graph in memory into ONNX Runtime on the CPU; Q/DQ pairs are computed as written.

    INT8 kernels differ between processors, and some saturate: see :mod:`.int8.saturation`.
    """
    settings = ort.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    # Nodes run in the order of the file. By default, nodes that only an output needs run at the
    # end, and their inputs are held until then: the extremes of a D4 then take 15 GB.
    settings.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    # An arena keeps all memory that it ever held. With a memory pattern, the second run allocates
    # the memory of the whole first run in addition.
    settings.enable_cpu_mem_arena = settings.enable_mem_pattern = False
    settings.add_session_config_entry("session.disable_quant_qdq", "1")
    if threads is not None:
        settings.intra_op_num_threads = threads
    return ort.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )


def graph_inputs(images: Iterable[NDArray[np.uint8]], spec: DetectorSpec) -> Iterator[NDArray[Any]]:
    """Yield one graph input per image ``[H,W,3]``, repeated to the smallest allowed batch."""
    for image in images:
        yield to_input(np.repeat(image[None], spec.batch.minimum, axis=0), spec.input)
