"""The peers that our graphs are timed against: same weights, same pictures, one process.

Every peer is a function of one batch of letterboxed pictures, uint8 ``[N,H,W,3]`` in host memory.
*End to end*, it returns rows of boxes in host memory. *Network*, it takes normalised float32
``[N,3,H,W]`` and returns raw heads, as ``--input normalized --nms none`` does.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from effdet.bench import DetBenchPredict
from engines import onnxruntime_session, openvino_session
from exports import int8_file, naive_onnx, our_file, our_input
from headline import NMS_OPERATOR_ENDING
from torch import Tensor, nn

from effdet_deploy.detection.detector import Detector
from effdet_deploy.detection.letterbox import to_input
from effdet_deploy.runtimes.adapter import run_images

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cases import Case, Weights
    from numpy.typing import NDArray

    Run = Callable[[], Any]

OURS = "ours, ONNX Runtime"
"""The peer that all others are compared with."""
COMPILED = ("effdet torch.compile FP32", "effdet torch.compile BF16")
INT8 = (
    "ours, OpenVINO INT8",
    "ours, OpenVINO INT8, the rest BF16",
    "ours, ONNX Runtime INT8",
)
NMS_OPERATOR = tuple(
    name + NMS_OPERATOR_ENDING for name in (OURS, "ours, OpenVINO FP32", "ours, OpenVINO INT8")
)
"""Peers whose NMS is ONNX's own operator in place of static steps."""
COSTLY = (*COMPILED, INT8[-1], "ours, TorchScript")
"""Peers that take minutes to make, and that are timed for some variants only."""
ALONE = (*COSTLY, "ours, OpenVINO BF16", INT8[1])
"""Peers that are timed with one image at a time: what a batch does to the others says enough."""
AGREEMENT = 1e-2
"""Between the best scores of ours and of effdet: peers that compute something else are no peers."""


class Normalise(nn.Module):
    """What effdet's loader does to a batch on its way to the network."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(config.mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(config.std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 ``[N,H,W,3]`` to float32 ``[N,3,H,W]``."""
        return images.permute(0, 3, 1, 2).float().sub_(self.mean).div_(self.std)


class Foreign(nn.Module):
    """A network that runs elsewhere than in torch, with effdet's outputs: two lists of levels."""

    def __init__(self, run: Callable[[NDArray[Any]], Sequence[NDArray[Any]]]) -> None:
        super().__init__()
        self.run = run

    def forward(self, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Map normalised images to class and box outputs, level by level."""
        maps = [torch.from_numpy(each) for each in self.run(pixels.numpy())]
        return maps[: len(maps) // 2], maps[len(maps) // 2 :]


class Half(nn.Module):
    """A network in bfloat16 whose inputs and outputs stay float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).to(torch.bfloat16)

    def forward(self, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Map as the network does."""
        classes, boxes = self.network(pixels.to(torch.bfloat16))
        return [each.float() for each in classes], [each.float() for each in boxes]


def effdet_networks(case: Case, weights: Weights, names: Sequence[str]) -> dict[str, nn.Module]:
    """Return every form in which effdet itself can be run, by name; only those in ``names``."""
    makers: dict[str, Callable[[], nn.Module]] = {
        "effdet eager": lambda: weights.theirs,
        COMPILED[0]: lambda: weights.compiled.setdefault(
            COMPILED[0], torch.compile(copy.deepcopy(weights.theirs))
        ),
        COMPILED[1]: lambda: weights.compiled.setdefault(
            COMPILED[1], torch.compile(Half(weights.theirs))
        ),
        "effdet naive ONNX, ONNX Runtime": lambda: Foreign(
            onnxruntime_session(naive_onnx(case, weights), case.threads)
        ),
        "effdet naive ONNX, OpenVINO FP32": lambda: Foreign(
            openvino_session(naive_onnx(case, weights), case, "f32")
        ),
    }
    return {name: make() for name, make in makers.items() if name in names}


EFFDET_PEERS = (
    "effdet eager",
    *COMPILED,
    "effdet naive ONNX, ONNX Runtime",
    "effdet naive ONNX, OpenVINO FP32",
)
OUR_PEERS = (
    OURS,
    "ours, OpenVINO FP32",
    "ours, OpenVINO BF16",
    *INT8,
    *NMS_OPERATOR,
    "ours, TorchScript",
)
PEERS = (*EFFDET_PEERS, *OUR_PEERS)


def our_runs(
    case: Case, weights: Weights, part: str, names: Sequence[str], stack: contextlib.ExitStack
) -> dict[str, Run]:
    """Return every engine that runs our graph, by name; only those in ``names``."""
    feed = our_input(case, weights, part)
    float32 = partial(our_file, case, weights, part)
    int8 = partial(int8_file, case, weights, part, "openvino")

    def openvino(path: Path) -> Run:
        if part == "network":
            # As its peers run it.
            return partial(openvino_session(path, case, "f32"), feed)
        return _detector_run(path, case, part, feed, stack, backend="openvino")

    makers: dict[str, Callable[[], Run]] = {
        OURS: lambda: _detector_run(float32(), case, part, feed, stack),
        "ours, OpenVINO FP32": lambda: openvino(float32()),
        "ours, OpenVINO BF16": lambda: partial(openvino_session(float32(), case, "bf16"), feed),
        "ours, OpenVINO INT8": lambda: openvino(int8()),
        "ours, OpenVINO INT8, the rest BF16": lambda: partial(
            openvino_session(int8(), case, "bf16"), feed
        ),
        "ours, ONNX Runtime INT8": lambda: _detector_run(
            int8_file(case, weights, part, "onnxruntime"), case, part, feed, stack
        ),
        NMS_OPERATOR[0]: lambda: _detector_run(float32(nms="onnx"), case, part, feed, stack),
        NMS_OPERATOR[1]: lambda: openvino(float32(nms="onnx")),
        NMS_OPERATOR[2]: lambda: openvino(int8(nms="onnx")),
        "ours, TorchScript": lambda: _detector_run(
            float32(".torchscript"), case, part, feed, stack
        ),
    }
    return {name: make() for name, make in makers.items() if name in names}


def _detector_run(
    path: Path,
    case: Case,
    part: str,
    feed: NDArray[Any],
    stack: contextlib.ExitStack,
    backend: str = "auto",
) -> Run:
    detector = stack.enter_context(Detector.load(path, backend, "cpu", case.threads))
    if part == "network":
        return partial(run_images, detector.runtime, feed)
    return partial(detector.detect_prepared, feed)


def artifact_runs(
    case: Case, weights: Weights, paths: Sequence[Path], stack: contextlib.ExitStack
) -> dict[str, Run]:
    """Return further files of ours, such as INT8 ones, end to end."""
    runs: dict[str, Run] = {}
    for path in paths:
        detector = stack.enter_context(Detector.load(path, device="cpu", threads=case.threads))
        feed = to_input(weights.pictures, detector.spec.input)
        runs[f"ours, {path.name}"] = partial(detector.detect_prepared, feed)
    return runs


def create_runs(
    case: Case,
    weights: Weights,
    part: str,
    names: Sequence[str],
    stack: contextlib.ExitStack,
) -> dict[str, Run]:
    """Return every peer in ``names`` as something to time, for ``part``."""
    torch.set_num_threads(case.threads)
    networks = effdet_networks(case, weights, names)
    if part == "network":
        pixels = torch.from_numpy(our_input(case, weights, part))
        runs = {name: _without_gradients(partial(each, pixels)) for name, each in networks.items()}
    else:
        normalise = Normalise(weights.ours.config)
        runs = {
            name: _without_gradients(
                partial(_effdet_rows, normalise, _bench(weights.theirs, each), weights.pictures)
            )
            for name, each in networks.items()
        }
    return runs | our_runs(case, weights, part, names, stack)


def _bench(theirs: nn.Module, network: nn.Module) -> DetBenchPredict:
    """Return effdet's post-processing around ``network``."""
    bench = DetBenchPredict(theirs)
    bench.model = network
    return bench


def _effdet_rows(
    normalise: nn.Module, bench: nn.Module, pictures: NDArray[np.uint8]
) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = bench(normalise(torch.from_numpy(pictures))).numpy()
    return rows


def _without_gradients(run: Run) -> Run:
    def quiet() -> Any:
        with torch.inference_mode():
            return run()

    return quiet


def require_agreement(runs: dict[str, Run]) -> float:
    """Check that effdet eager and ours find the same best scores, end to end.

    Returns:
        The largest difference among the ten best scores of each picture.

    Raises:
        RuntimeError: they do not, so that a comparison of their times would say nothing.
    """
    if OURS not in runs or "effdet eager" not in runs:
        return 0.0
    theirs = np.asarray(runs["effdet eager"]())[:, :10, 4]
    ours = runs[OURS]()["detection_scores"][:, :10]
    difference = float(np.abs(theirs - ours).max())
    if difference > AGREEMENT:
        message = f"ours and effdet differ by {difference:.3f} in their best scores"
        raise RuntimeError(message)
    return difference
