"""From what the user names to the two sides of a comparison."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from effdet_deploy.artifact.modelfile import SUFFIXES, recognise
from effdet_deploy.detection.detector import Detector, load
from effdet_deploy.errors import MissingPackageError, ModelFileError, UsageError
from effdet_deploy.files import base_name
from effdet_deploy.parity.comparison import Side
from effdet_deploy.runtimes import load_runtime

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.diagnosis.layers import LayerSource
    from effdet_deploy.onnxgraph.graph_layers import GraphLayer
    from effdet_deploy.pytorch.network import EfficientDet
    from effdet_deploy.pytorch.reference import EagerRuntime

_EFFDET_CANDIDATES, _EFFDET_DETECTIONS, _EFFDET_IOU = 5000, 100, 0.5
"""Of effdet's own post-processing."""
_AMBIGUOUS = ".pt"
"""The suffix of TorchScript archives and of checkpoints."""


@dataclass(frozen=True)
class Engine:
    """How artifacts are run; see :func:`effdet_deploy.runtimes.load_runtime`."""

    backend: str = "auto"
    device: str = "auto"
    threads: int | None = None
    trust: bool = False


@dataclass(frozen=True, eq=False)
class Reference:
    """An opened reference, and where its layers can be read: its file, or the network."""

    side: Side
    origin: Path | EfficientDet


@dataclass(eq=False)
class References:
    """What candidates are compared with, opened once for all that it fits.

    Args:
        given: the path of an exported model, or weights.
        engine: how an exported model is run.
    """

    given: str
    engine: Engine
    _opened: dict[str, Reference] = field(default_factory=dict)

    @property
    def path(self) -> Path | None:
        """The exported model; None where the reference is weights."""
        return Path(self.given) if is_artifact(self.given) else None

    @property
    def name(self) -> str:
        """What the reference is called in a report."""
        return str(self.path) if self.path else f"PyTorch, {base_name(self.given)}"

    def open(self, spec: DetectorSpec, stack: ExitStack) -> Reference:
        """Open the reference for a candidate of ``spec``; weights take the candidate's variant.

        Raises:
            MissingPackageError: weights, and torch is not installed.
            WeightsError: the weights are unusable or of another model.
        """
        if self.path is not None:
            if "" not in self._opened:
                self._opened[""] = Reference(
                    open_artifact(self.path, self.engine, stack), self.path
                )
            return self._opened[""]
        parts = (spec.variant, spec.overrides, spec.input, spec.anchors, spec.classes, spec.output)
        key = repr(parts)
        if key not in self._opened:
            self._opened[key] = _open_weights(self.given, spec)
        return self._opened[key]

    def require_layers(self, candidates: Sequence[Path]) -> None:
        """Check that the layers of all sides can be read.

        Raises:
            UsageError: one is an exported model and no ONNX file.
            MissingPackageError: the ``onnx`` package is not installed.
        """
        for path in filter(None, (*candidates, self.path)):
            if SUFFIXES.get(path.suffix.lower()) != "onnx":
                raise UsageError(
                    f"--layers reads ONNX files, and '{path.name}' is none.",
                    "Name the ONNX file that it was made from, or leave --layers out.",
                )
        require_onnx("comparing layers")


def require_onnx(purpose: str) -> None:
    """Check for the package that reads ONNX files.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        importlib.import_module("onnx")
    except ImportError as error:
        raise MissingPackageError("onnx", purpose, "export") from error


def is_artifact(name: str) -> bool:
    """Tell an exported model from weights, by its suffix; by its content where that is ``.pt``."""
    path = Path(name)
    suffix = path.suffix.lower()
    if suffix != _AMBIGUOUS or not path.is_file():
        return suffix in SUFFIXES and suffix != _AMBIGUOUS
    try:
        return recognise(path) == SUFFIXES[_AMBIGUOUS]
    except ModelFileError:
        return False


def open_artifact(path: Path, engine: Engine, stack: ExitStack) -> Side:
    """Load an exported model; it is closed with ``stack``.

    The raw heads of an ONNX file with NMS come from a copy that has them as outputs. The ``onnx``
    package writes it: without that package, or in files of others, heads stay unknown.
    """
    settings = (engine.backend, engine.device, engine.threads, engine.trust)
    detector = stack.enter_context(load(path, *settings))
    spec = detector.spec
    reads_onnx = detector.runtime.backend in ("onnxruntime", "openvino")
    if spec.output.nms == "none" or not reads_onnx:
        return Side(detector)
    try:
        from effdet_deploy.onnxgraph.graph_layers import with_heads
    except ImportError:
        return Side(detector)
    with contextlib.suppress(ModelFileError):
        heads = load_runtime(stack.enter_context(with_heads(path, spec)), *settings)
        stack.callback(heads.close)
        return Side(detector, heads)
    return Side(detector)


def _open_weights(weights: str, spec: DetectorSpec) -> Reference:
    """Build the network of an artifact's ``spec`` in eager PyTorch."""
    runtime, network = open_eager(weights, spec, f"comparing with the weights '{weights}'")
    return Reference(Side(Detector(runtime), heads64=runtime.run_double), network)


def open_eager(weights: str, spec: DetectorSpec, purpose: str) -> tuple[EagerRuntime, EfficientDet]:
    """Return the network that an artifact of ``spec`` was exported from, as a runtime and itself.

    Args:
        weights: ``pretrained``, ``random``, a path or a URL.
        spec: of the artifact.
        purpose: what needs torch, for the error's message.

    Raises:
        MissingPackageError: torch is not installed.
        WeightsError: the weights are unusable or of another model.
    """
    try:
        from effdet_deploy.pytorch.reference import EagerRuntime, build_network, eager_spec
    except ImportError as error:
        raise MissingPackageError("torch", purpose, "export") from error
    network = build_network(spec, weights)
    return EagerRuntime(network, eager_spec(spec)), network


def layer_sources(
    candidate: Path, reference: Reference
) -> tuple[tuple[GraphLayer, ...], LayerSource, LayerSource]:
    """Return the layers of a candidate, and both sides as sources of them.

    Args:
        candidate: an ONNX file of ours.
        reference: another, or weights.

    Raises:
        ModelFileError: a file has no nodes named as ours are.
    """
    from effdet_deploy.onnxgraph.graph_layers import GraphLayers

    ours = GraphLayers(candidate)
    if isinstance(reference.origin, Path):
        return ours.layers, ours, GraphLayers(reference.origin)
    from effdet_deploy.pytorch.layers import EagerLayers

    return ours.layers, ours, EagerLayers(reference.origin, ours.spec.input, ours.layers)


def eager_detector(spec: DetectorSpec, weights: str) -> Detector:
    """Return the network of an exported model in eager PyTorch, with effdet's post-processing.

    Raises:
        MissingPackageError: torch is not installed.
        WeightsError: the weights are unusable or of another model.
    """
    output = dataclasses.replace(
        spec.output,
        candidates=_EFFDET_CANDIDATES,
        score_threshold=0.0,
        iou_threshold=_EFFDET_IOU,
        max_detections=_EFFDET_DETECTIONS,
    )
    spec = dataclasses.replace(spec, output=output)
    runtime, _ = open_eager(weights, spec, f"measuring the weights '{weights}'")
    return Detector(runtime)
