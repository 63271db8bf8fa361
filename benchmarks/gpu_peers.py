"""The programs that are timed on a GPU, called peers: forms of our graph and of effdet's network.

Our graph runs in TorchScript, as a CUDA graph, in ONNX Runtime and in TensorRT; effdet's network
runs eagerly and compiled. A peer is a function without arguments that turns the same letterboxed
uint8 pictures
``[N,H,W,3]`` in host memory into rows of boxes in host memory. TF32 is off for all peers.
"""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from effdet.bench import DetBenchPredict
from foreign import Half, Normalize
from gpu_graphs import Recorded, pipeline_of, write_archive
from graphs import CANDIDATES, Case

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.detection.detector import Detector
from effdet_deploy.detection.letterbox import to_input
from effdet_deploy.errors import ModelFileError, UsageError
from effdet_deploy.exporters.options import ExportOptions

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from effdet_deploy.artifact.spec import Precision

    Run = Callable[[], Any]

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
OURS, GRAPH = "ours, TorchScript", "ours, CUDA graph"
EAGER, COMPILED = "effdet eager", "effdet torch.compile"
RECORDED = "effdet torch.compile with CUDA graphs"
ONNXRUNTIME, TENSORRT = "ours, ONNX Runtime", "ours, TensorRT"
BESIDE_EAGER = (OURS, GRAPH, EAGER)
BESIDE_COMPILED = (OURS, COMPILED)
BESIDE_RECORDED = (OURS, GRAPH, RECORDED)
BESIDE_ONNXRUNTIME, BESIDE_TENSORRT = (OURS, ONNXRUNTIME), (OURS, TENSORRT)
AGREEMENT: dict[Precision, float] = {"fp32": 1e-2, "fp16": 5e-2}
"""How much a peer's best scores may differ from ours in FP32; otherwise the peer is left out."""
BEST = 10
"""How many of a picture's best scores are compared."""


@dataclass(frozen=True)
class Subject:
    """A variant of the network on a device. Its files are in, or are made in, the case's directory.

    Attributes:
        case: the variant's weights, and pictures for the largest batch.
        device: ``cuda`` or ``cpu``.
        compiler: torch.compile's backend.
    """

    case: Case
    device: str
    compiler: str = "inductor"

    @property
    def options(self) -> ExportOptions:
        """The options with which the variant's files are exported."""
        batch = BatchSpec(1, 1, self.case.batch)
        return ExportOptions(batch=batch, candidates=CANDIDATES, verify=False)

    def file(self, suffix: str, precision: Precision) -> Path:
        """Return our file; raises UsageError if it is missing and cannot be made here."""
        half = "-fp16" if precision == "fp16" else ""
        path = self.case.directory / f"{self.case.variant}{half}{suffix}"
        if path.exists():
            return path
        if suffix != ".torchscript":
            raise UsageError(f"'{path.name}' is not in the kit.", "See benchmarks/gpu_kit.py.")
        return write_archive(path, self.case.weights.ours, self.options, precision)

    def lacking(self, names: Sequence[str]) -> str:
        """Return what this machine lacks for the peers in ``names``; empty if nothing."""
        modules = {ONNXRUNTIME: "onnxruntime", TENSORRT: "tensorrt"}
        for module in (modules[name] for name in names if name in modules):
            if importlib.util.find_spec(module) is None:
                return f"{module} is not installed on that machine"
            if not (self.case.directory / f"{self.case.variant}.onnx").exists():
                return f"the ONNX file of {self.case.variant} is not in the kit"
        if ONNXRUNTIME in names and self.device == "cuda":
            import onnxruntime

            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                return "onnxruntime on that machine has no CUDA; onnxruntime-gpu has it"
        return ""

    def runs(
        self, names: Sequence[str], batch: int, stack: contextlib.ExitStack
    ) -> tuple[dict[str, Run], dict[str, str]]:
        """Prepare the peers in both precisions and run every peer once.

        Returns:
            The functions to time, by name; and why other peers were left out, by name.
        """
        pictures = self.case.weights.pictures[:batch]
        makers = {
            OURS: partial(self._loaded, pictures, stack, ".torchscript"),
            GRAPH: partial(self._recorded, pictures),
            EAGER: partial(self._effdet, pictures, lambda network: network),
            COMPILED: partial(self._effdet, pictures, self._compiled("default")),
            RECORDED: partial(self._effdet, pictures, self._compiled("reduce-overhead")),
            ONNXRUNTIME: partial(self._loaded, pictures, stack, ".onnx", backend="onnxruntime"),
            TENSORRT: partial(self._in_tensorrt, pictures, stack),
        }
        runs: dict[str, Run] = {}
        left_out: dict[str, str] = {}
        expected = None
        for precision in PRECISIONS:
            for name in names:
                shown = f"{name} {precision.upper()}"
                try:
                    run = makers[name](precision)
                    scores = best_scores(run())
                except TimeoutError:
                    raise
                except Exception as error:  # noqa: BLE001 - the other peers are still timed
                    left_out[shown] = f"{type(error).__name__}: {error}"[:400]
                    continue
                expected = scores if expected is None else expected
                difference = float(np.abs(scores - expected).max())
                if difference <= AGREEMENT[precision]:
                    runs[shown] = run
                else:
                    left_out[shown] = f"its best scores differ by {difference:.3f}"
        return runs, left_out

    def _loaded(
        self,
        pictures: NDArray[np.uint8],
        stack: contextlib.ExitStack,
        suffix: str,
        precision: Precision,
        backend: str = "torchscript",
    ) -> Run:
        path = self.file(suffix, precision)
        try:
            detector = Detector.load(path, backend, self.device)
        except ModelFileError:
            # An older PyTorch cannot read the kit's archive, so it writes its own.
            path.unlink()
            detector = Detector.load(self.file(suffix, precision), backend, self.device)
        stack.enter_context(detector)
        return partial(detector.detect_prepared, to_input(pictures, detector.spec.input))

    def _recorded(self, pictures: NDArray[np.uint8], precision: Precision) -> Run:
        if self.device == "cpu":
            raise UsageError("Only a GPU records graphs.", "")
        pipeline, spec = pipeline_of(self.case.weights.ours, self.options, precision, "matrix")
        feed = to_input(pictures, spec.input)
        return partial(Recorded(pipeline.cuda(), feed), feed)

    def _compiled(self, mode: str) -> Callable[[nn.Module], nn.Module]:
        # Only inductor has modes; other compilers refuse the argument.
        how = {"mode": mode} if self.compiler == "inductor" else {}
        return partial(torch.compile, backend=self.compiler, dynamic=False, **how)

    def _effdet(
        self,
        pictures: NDArray[np.uint8],
        prepared: Callable[[nn.Module], nn.Module],
        precision: Precision,
    ) -> Run:
        theirs, config = copy.deepcopy(self.case.weights.theirs), self.case.weights.ours.config
        bench = DetBenchPredict(theirs).to(self.device)
        normalize = Normalize(config.mean, config.std).to(self.device)
        bench.model = prepared(theirs if precision == "fp32" else Half(theirs, torch.float16))

        @torch.inference_mode()
        def run() -> NDArray[np.float32]:
            images = torch.from_numpy(pictures).to(self.device)
            return bench(normalize(images)).cpu().numpy()

        return run

    def _in_tensorrt(
        self, pictures: NDArray[np.uint8], stack: contextlib.ExitStack, precision: Precision
    ) -> Run:
        from effdet_deploy.exporters.build_options import BuildOptions
        from effdet_deploy.exporters.tensorrt.engine import build_engine

        model = self.file(".onnx", precision)
        engine = model.with_suffix(".engine")
        if not engine.exists():
            build_engine(model, engine, BuildOptions())
        return self._loaded(pictures, stack, ".engine", precision, "tensorrt")


def best_scores(found: Any) -> NDArray[np.float32]:
    """Return the ten best scores of every picture, from our outputs or effdet's rows."""
    if isinstance(found, dict):
        return np.asarray(found["detection_scores"])[:, :BEST]
    return np.asarray(found)[:, :BEST, 4]
