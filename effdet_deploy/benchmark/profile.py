"""Profiles of ONNX graphs in a runtime: the time of a graph's parts, and how much it computes."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

STAGES = {
    "preprocess": r"preprocess\.",
    "backbone": r"backbone\.",
    "fpn": r"fpn\.",
    "heads": r"(?:class|box)_net\.",
    "head reorder": r"(?:class_logits|box_regression)(?:\.|$)",
    "selection": r"postprocess\.select\.",
    "decode": r"postprocess\.decode\.",
    "nms": r"postprocess\.nms\.",
    "output rows": r"postprocess\.|num_detections|detection_",
}
"""Parts of a graph, by the module path in the names of their nodes; the first match counts."""
LAYOUT = "layout changes"
"""Nodes that the runtime added to change the memory layout; their names hold no module path."""
_PATTERNS = {stage: re.compile(pattern) for stage, pattern in STAGES.items()}
_KERNEL_SUFFIX = "_kernel_time"
_BYTES = 4
"""Bytes of an element: float32, as in the measured :class:`Ceilings`."""
_ERRORS_ONLY = 3


@dataclass(frozen=True)
class NodeTime:
    """One node: its name and operator in the optimized graph, and its median seconds."""

    name: str
    operator: str
    seconds: float

    @property
    def stage(self) -> str:
        """The node's part of the graph; nodes that the runtime added are layout changes."""
        found = (stage for stage, pattern in _PATTERNS.items() if pattern.match(self.name))
        return next(found, LAYOUT)


def profile_onnx(
    path: Path, feeds: dict[str, NDArray[Any]], *, threads: int | None, runs: int = 10
) -> list[NodeTime]:
    """Run the model on the CPU with ONNX Runtime's profiler and return the time of every node.

    The times show shares of the whole; profiling makes them longer than those of a benchmark.
    """
    settings = ort.SessionOptions()
    if threads is not None:
        settings.intra_op_num_threads = threads
    seconds = defaultdict(list)
    for event in _profiled_events(path, feeds, settings, runs):
        name = str(event.get("name", ""))
        if name.endswith(_KERNEL_SUFFIX):
            key = name.removesuffix(_KERNEL_SUFFIX), str(event["args"]["op_name"])
            seconds[key].append(1e-6 * float(event["dur"]))
    return _node_times(seconds, runs)


def profile_openvino(
    path: Path, feeds: dict[str, NDArray[Any]], *, threads: int | None, runs: int = 10
) -> list[NodeTime]:
    """Do what :func:`profile_onnx` does, but with OpenVINO and its performance counters.

    The model is compiled for the shape of the feeds, as in a benchmark.
    """
    import openvino as ov
    import openvino.properties as ov_properties
    import openvino.properties.hint as ov_hints

    settings: dict[Any, Any] = {
        ov_properties.enable_profiling: True,
        ov_hints.performance_mode: ov_hints.PerformanceMode.LATENCY,
        ov_hints.inference_precision: ov.Type.f32,
    }
    if threads is not None:
        settings[ov_properties.inference_num_threads] = threads
    core = ov.Core()
    model = core.read_model(path)
    model.reshape({name: feed.shape for name, feed in feeds.items()})
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    seconds = defaultdict(list)
    for _ in range(runs):
        request.infer(feeds, share_inputs=True, share_outputs=True)
        for node in request.get_profiling_info():
            seconds[node.node_name, node.node_type].append(node.real_time.total_seconds())
    return _node_times(seconds, runs)


PROFILERS = {"onnxruntime": profile_onnx, "openvino": profile_openvino}
"""Functions that show where the time goes inside a graph, by runtime; both run ONNX files."""


def _node_times(seconds: Mapping[tuple[str, str], list[float]], runs: int) -> list[NodeTime]:
    # Nodes with the same name cannot be told apart, so they count together.
    return [
        NodeTime(name, operator, float(np.median(times)) * max(1, len(times) // runs))
        for (name, operator), times in seconds.items()
    ]


def stage_shares(nodes: list[NodeTime]) -> dict[str, float]:
    """Return the share of the time of every part of the graph, largest first."""
    total = sum(node.seconds for node in nodes) or 1.0
    shares: dict[str, float] = defaultdict(float)
    for node in nodes:
        shares[node.stage] += node.seconds / total
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class Work:
    """The least work of one run.

    Attributes:
        macs: multiply-accumulates of all convolutions.
        traffic: bytes of float32 if every convolution reads its input and weights once and writes
            its output once, and no other node moves data.
    """

    macs: int
    traffic: int


def convolution_work(path: Path, feeds: Mapping[str, NDArray[Any]]) -> Work:
    """Run an ONNX file once on the CPU, without optimization, and add up its convolutions.

    ONNX Runtime's profile of a graph that was not optimized gives the shapes of all nodes, so this
    needs no other package.
    """
    settings = ort.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    macs = traffic = 0
    for event in _profiled_events(path, feeds, settings):
        operator = event["args"].get("op_name")
        if operator in ("Conv", "Gemm"):
            # The profile writes a tensor as {type: shape}.
            source, *constants, output = (
                next(iter(each.values()))
                for end in ("input_type_shape", "output_type_shape")
                for each in event["args"][end]
            )
            # In our graphs a Gemm replaces a pointwise convolution with channels last. The profile
            # lacks its weights, which the runtime has packed.
            weight = constants[0] if operator == "Conv" else [output[1], source[1]]
            macs += math.prod(output) * math.prod(weight[1:])
            traffic += _BYTES * (math.prod(source) + math.prod(weight) + math.prod(output))
    return Work(macs, traffic)


def _profiled_events(
    path: Path, feeds: Mapping[str, NDArray[Any]], settings: ort.SessionOptions, runs: int = 1
) -> list[dict[str, Any]]:
    """Run the model on the CPU and return the events that ONNX Runtime's profiler wrote."""
    settings.enable_profiling = True
    with tempfile.TemporaryDirectory() as directory:
        settings.profile_file_prefix = str(Path(directory) / "profile")
        session = ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        for _ in range(runs):
            session.run(None, dict(feeds))
        events: list[dict[str, Any]] = json.loads(Path(session.end_profiling()).read_bytes())
    return [event for event in events if event.get("cat") == "Node"]
