"""How much work one run of an ONNX graph is: what its convolutions multiply, and must move."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnxruntime as ort

from effdet_deploy.benchmark.profile import profiled_events

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.benchmark.ceilings import Ceilings

_BYTES = 4
"""Of an element: the ceilings are those of float32."""
_ERRORS_ONLY = 3


@dataclass(frozen=True)
class Work:
    """What one run takes at least.

    Attributes:
        macs: multiply-accumulates of all convolutions.
        traffic: bytes of float32 if each convolution reads its input and its weights once and
            writes its output once, and nothing else moves anything.
    """

    macs: int
    traffic: int

    def reached(self, seconds: float, ceilings: Ceilings) -> Reached:
        """Return the shares of ``ceilings`` that a run of ``seconds`` comes to."""
        return Reached(
            2 * self.macs / seconds / ceilings.flops, self.traffic / seconds / ceilings.bandwidth
        )


@dataclass(frozen=True)
class Reached:
    """Shares of the machine's float32 ceilings; INT8 and BF16 may go above 1."""

    arithmetic: float
    bandwidth: float


def convolution_work(path: Path, feeds: Mapping[str, NDArray[Any]]) -> Work:
    """Run an ONNX file once on the CPU, as it is written, and add up its convolutions.

    ONNX Runtime's profile of a graph that it did not optimise says every node's shapes; so this
    needs no package but the engine.
    """
    settings = ort.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    macs = traffic = 0
    for event in profiled_events(path, feeds, settings):
        operator = event["args"].get("op_name")
        if operator in ("Conv", "Gemm"):
            source, *constants = _shapes(event["args"]["input_type_shape"])
            (output,) = _shapes(event["args"]["output_type_shape"])
            # Our graphs write a Gemm where a pointwise convolution has its channels last. It says
            # nothing of its weights, which the engine has packed away.
            weight = constants[0] if operator == "Conv" else [output[1], source[1]]
            macs += math.prod(output) * math.prod(weight[1:])
            traffic += _BYTES * (math.prod(source) + math.prod(weight) + math.prod(output))
    return Work(macs, traffic)


def _shapes(described: list[dict[str, list[int]]]) -> list[list[int]]:
    """Return the shapes of tensors that the profile writes as ``{type: shape}``."""
    return [next(iter(each.values())) for each in described]
