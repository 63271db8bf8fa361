"""ONNX files in the engines, as a user without effdet-deploy runs them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import onnxruntime as ort

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from graphs import Case
    from numpy.typing import NDArray


def onnxruntime_session(path: Path, threads: int) -> Callable[[NDArray[Any]], list[NDArray[Any]]]:
    """Return what runs an ONNX file in ONNX Runtime at its defaults."""
    session = _session(path, threads)
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})


def openvino_session(
    path: Path, case: Case, precision: str
) -> Callable[[NDArray[Any]], list[NDArray[Any]]]:
    """Return what runs an ONNX file in OpenVINO, tuned for latency at the case's batch size.

    Its outputs stay in the engine's memory, which the next run writes again.
    """
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    shape = model.input(0).partial_shape
    shape[0] = case.batch
    model.reshape({model.input(0): shape})
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": case.threads,
        "INFERENCE_PRECISION_HINT": precision,
    }
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    shared = {"share_inputs": True, "share_outputs": True}
    return lambda pixels: list(request.infer([pixels], **shared).to_tuple())


def bound_run(path: Path, feed: NDArray[Any], threads: int) -> Callable[[], None]:
    """Return a run whose outputs have their memory already.

    The network's outputs are megabytes, which the whole graph keeps to itself and uses again.
    """
    session = _session(path, threads)
    given = session.get_inputs()[0].name
    binding = session.io_binding()
    binding.bind_cpu_input(given, feed)
    for each, value in zip(session.get_outputs(), session.run(None, {given: feed}), strict=True):
        binding.bind_ortvalue_output(each.name, ort.OrtValue.ortvalue_from_numpy(value))
    return partial(session.run_with_iobinding, binding)


def _session(path: Path, threads: int) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    return ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
