"""The programs that are timed, called peers: effdet's network and our graphs, in several forms.

All peers have the same weights, take the same pictures and run in one process. A peer is a function
of one batch. For the part *end to end* the batch is letterboxed pictures, uint8 ``[N,H,W,3]`` in
host memory, and the peer returns rows of boxes in host memory. For the part *network* the batch is
normalized float32 ``[N,3,H,W]``, and the peer returns the raw outputs of the heads, like a file
exported with ``--input normalized --nms none``.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import torch
from effdet.bench import DetBenchPredict
from foreign import Foreign, Half, Normalize, onnxruntime_maps, onnxruntime_session
from graphs import NETWORK
from headline import (
    ALL_CANDIDATES_ENDING,
    EAGER,
    FLOAT32,
    NAIVE,
    NMS_OPERATOR_ENDING,
    OPENVINO_INT8,
)

from effdet_deploy.artifact.spec import EFFDET_CANDIDATES
from effdet_deploy.detection.detector import Detector
from effdet_deploy.detection.letterbox import to_input
from effdet_deploy.runtimes.adapter import run_images

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from graphs import Case
    from numpy.typing import NDArray
    from torch import nn

    Run = Callable[[], Any]

OURS, OPENVINO = FLOAT32
"""All other peers are compared with OURS."""
COMPILED = ("effdet torch.compile FP32", "effdet torch.compile BF16")
BF16, TORCHSCRIPT = "ours, OpenVINO BF16", "ours, TorchScript"
INT8 = (*OPENVINO_INT8, "ours, ONNX Runtime INT8")
NMS_OPERATOR = tuple(name + NMS_OPERATOR_ENDING for name in (OURS, OPENVINO, INT8[0]))
"""Peers whose NMS is ONNX's own operator in place of static steps."""
ALL_CANDIDATES = tuple(name + ALL_CANDIDATES_ENDING for name in (OURS, OPENVINO))
"""Peers that pass as many boxes (candidates) to NMS as effdet does."""
OURS_FLOAT32 = (OURS, OPENVINO, *ALL_CANDIDATES)
PEERS = (
    *(EAGER, *COMPILED, *NAIVE),
    *(*OURS_FLOAT32, BF16, *INT8, *NMS_OPERATOR, TORCHSCRIPT),
)
COSTLY = (*COMPILED, INT8[-1], TORCHSCRIPT)
"""Peers that take minutes to make, and that are timed for some variants only."""
ALONE = (*COSTLY, BF16, INT8[1])
"""Peers that are timed only with single images; for batches the other peers are enough."""
AGREEMENT = 1e-2
"""How much a peer's best scores may differ from effdet's; otherwise peers are not compared."""


def create_runs(
    case: Case, part: str, names: Collection[str], stack: contextlib.ExitStack
) -> dict[str, Run]:
    """Return a function to time for every peer in ``names``, for ``part``."""
    torch.set_num_threads(case.threads)
    makers = _effdet_runs(case, part) | _our_runs(case, part, stack)
    return {name: make() for name, make in makers.items() if name in names}


def _effdet_runs(case: Case, part: str) -> dict[str, Callable[[], Run]]:
    """Return, by the peer's name, functions that prepare effdet's own network in every form."""
    theirs, kept = case.weights.theirs, case.weights.compiled
    half = partial(Half, theirs, torch.bfloat16)
    networks: dict[str, Callable[[], nn.Module]] = {
        EAGER: lambda: theirs,
        COMPILED[0]: lambda: kept.setdefault(COMPILED[0], torch.compile(copy.deepcopy(theirs))),
        COMPILED[1]: lambda: kept.setdefault(COMPILED[1], torch.compile(half())),
        NAIVE[0]: lambda: Foreign(onnxruntime_maps(case.naive_onnx(), case.threads)),
        NAIVE[1]: lambda: Foreign(openvino_session(case.naive_onnx(), case, "f32")),
    }

    def run_of(make: Callable[[], nn.Module]) -> Run:
        network = make()
        if part == NETWORK:
            pixels = torch.from_numpy(case.our_input(part))
            return torch.inference_mode()(lambda: network(pixels))
        config, bench = case.weights.ours.config, DetBenchPredict(theirs)
        normalize = Normalize(config.mean, config.std)
        bench.model = network
        pictures = case.weights.pictures
        return torch.inference_mode()(lambda: bench(normalize(torch.from_numpy(pictures))).numpy())

    return {name: partial(run_of, make) for name, make in networks.items()}


def _our_runs(case: Case, part: str, stack: contextlib.ExitStack) -> dict[str, Callable[[], Run]]:
    """Return, by the peer's name, functions that prepare our graph in every runtime."""
    feed = case.our_input(part)

    def loaded(path: Path, backend: str = "auto") -> Run:
        if part == NETWORK and backend == "openvino":
            # As with the other peers in OpenVINO, outputs stay in the runtime's memory.
            return in_openvino(path, "f32")
        detector = stack.enter_context(Detector.load(path, backend, "cpu", case.threads))
        if part == NETWORK:
            return partial(run_images, detector.runtime, feed)
        return partial(detector.detect_prepared, feed)

    def in_openvino(path: Path, precision: str) -> Run:
        return partial(openvino_session(path, case, precision), feed)

    float32, int8 = partial(case.our_file, part), partial(case.int8_file, part)
    return {
        OURS: lambda: loaded(float32()),
        OPENVINO: lambda: loaded(float32(), "openvino"),
        BF16: lambda: in_openvino(float32(), "bf16"),
        INT8[0]: lambda: loaded(int8("openvino"), "openvino"),
        INT8[1]: lambda: in_openvino(int8("openvino"), "bf16"),
        INT8[2]: lambda: loaded(int8("onnxruntime")),
        ALL_CANDIDATES[0]: lambda: loaded(float32(candidates=EFFDET_CANDIDATES)),
        ALL_CANDIDATES[1]: lambda: loaded(float32(candidates=EFFDET_CANDIDATES), "openvino"),
        NMS_OPERATOR[0]: lambda: loaded(float32(nms="onnx")),
        NMS_OPERATOR[1]: lambda: loaded(float32(nms="onnx"), "openvino"),
        NMS_OPERATOR[2]: lambda: loaded(int8("openvino", nms="onnx"), "openvino"),
        TORCHSCRIPT: lambda: loaded(float32(".torchscript")),
    }


def artifact_runs(case: Case, paths: Sequence[Path], stack: contextlib.ExitStack) -> dict[str, Run]:
    """Return functions that run further files of ours, such as INT8 files, end to end."""
    runs: dict[str, Run] = {}
    for path in paths:
        detector = stack.enter_context(Detector.load(path, device="cpu", threads=case.threads))
        feed = to_input(case.weights.pictures, detector.spec.input)
        runs[f"ours, {path.name}"] = partial(detector.detect_prepared, feed)
    return runs


def require_agreement(runs: dict[str, Run]) -> float:
    """Check that effdet eager and our file in ONNX Runtime find the same best scores, end to end.

    Returns:
        The largest difference among the ten best scores of each picture.

    Raises:
        RuntimeError: they find different scores, so a comparison of their times would mean nothing.
    """
    if not {OURS, EAGER} <= runs.keys():
        return 0.0
    theirs = np.asarray(runs[EAGER]())[:, :10, 4]
    difference = float(np.abs(theirs - runs[OURS]()["detection_scores"][:, :10]).max())
    if difference > AGREEMENT:
        raise RuntimeError(f"ours and effdet differ by {difference:.3f} in their best scores")
    return difference


def openvino_session(
    path: Path, case: Case, precision: str
) -> Callable[[NDArray[Any]], list[NDArray[Any]]]:
    """Return a function that runs an ONNX file in OpenVINO, tuned for latency at the batch size.

    The outputs stay in the runtime's memory, and the next run overwrites them.
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
    """Return a run whose output memory is allocated once and used again.

    The network's outputs have megabytes. The whole graph keeps them inside the runtime, which uses
    their memory again, so a run of the network alone must not allocate this memory every time.
    """
    session = onnxruntime_session(path, threads)
    given = session.get_inputs()[0].name
    binding = session.io_binding()
    binding.bind_cpu_input(given, feed)
    for each, value in zip(session.get_outputs(), session.run(None, {given: feed}), strict=True):
        binding.bind_ortvalue_output(each.name, ort.OrtValue.ortvalue_from_numpy(value))
    return partial(session.run_with_iobinding, binding)
