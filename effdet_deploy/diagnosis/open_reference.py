"""From what the user names to the two sides of a comparison."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from effdet_deploy.artifact.modelfile import SUFFIXES, recognise
from effdet_deploy.detection.detector import Detector
from effdet_deploy.errors import (
    MissingPackageError,
    ModelFileError,
    UsageError,
    require_package,
)
from effdet_deploy.files import base_name
from effdet_deploy.parity.side import open_side

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import ExitStack

    from effdet_deploy.artifact.spec import DetectorSpec, InputSpec
    from effdet_deploy.diagnosis.locating import LayerSource
    from effdet_deploy.onnxgraph.layers import GraphLayer
    from effdet_deploy.parity.side import Side
    from effdet_deploy.pytorch.reference import EagerReference

_EFFDET_IOU = 0.5
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
    allow_saturation: bool = False


def open_references(
    given: str, specs: Mapping[Path, DetectorSpec], engine: Engine, stack: ExitStack
) -> dict[Path, Side]:
    """Open what candidates are compared with, once for all that it fits; ``stack`` closes it.

    Args:
        given: the path of an exported model; or weights, which take the candidate's variant.
        specs: of the candidates, by path.
        engine: how an exported model is run.
        stack: what to close is left there.

    Raises:
        MissingPackageError: weights, and torch is not installed.
        WeightsError: the weights are unusable or of another model.
    """
    path = exported_model(given)
    if path is not None:
        exported: Side = open_side(path, stack, **dataclasses.asdict(engine))
        return dict.fromkeys(specs, exported)
    opened: dict[str, Side] = {}
    found: dict[Path, Side] = {}
    for candidate, spec in specs.items():
        parts = (spec.variant, spec.overrides, spec.input, spec.anchors, spec.classes, spec.output)
        if (key := repr(parts)) not in opened:
            opened[key] = open_eager(given, spec, f"comparing with the weights '{given}'")
        found[candidate] = opened[key]
    return found


def reference_name(given: str) -> str:
    """Return what the reference is called in a report."""
    return f"PyTorch, {base_name(given)}" if exported_model(given) is None else str(Path(given))


def require_layers(candidates: Sequence[Path], reference: str) -> None:
    """Check that the layers of all sides can be read.

    Raises:
        UsageError: one is an exported model and no ONNX file.
        MissingPackageError: the ``onnx`` package is not installed.
    """
    for path in filter(None, (*candidates, exported_model(reference))):
        if SUFFIXES.get(path.suffix.lower()) != "onnx":
            raise UsageError(
                f"--layers reads ONNX files, and '{path.name}' is none.",
                "Name the ONNX file that it was made from, or leave --layers out.",
            )
    require_package("onnx", "comparing layers", "export")


def require_one_size(path: Path, mine: InputSpec, known: InputSpec) -> None:
    """Check that a candidate at ``path`` and its reference take the same, for networks of one size.

    Raises:
        UsageError: they do not, and no layer of one compares with the other's.
    """
    sizes = []
    for each in (mine, known):
        frames = "x".join(map(str, each.source_size or ()))
        resized = f" resized from frames of {frames}" if frames else ""
        sizes.append(f"{each.height}x{each.width}{resized}")
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"--layers compares networks of one image size; '{path.name}' takes {sizes[0]}, and "
            f"the reference {sizes[1]}.",
            "Export both at the same size, or leave --layers out.",
        )


def exported_model(name: str) -> Path | None:
    """Return the path of an exported model, told by its suffix; None where weights are named.

    Where the suffix is ``.pt``, the content decides.
    """
    path = Path(name)
    suffix = path.suffix.lower()
    if suffix != _AMBIGUOUS:
        return path if suffix in SUFFIXES else None
    with contextlib.suppress(ModelFileError):
        if path.is_file() and recognise(path) == SUFFIXES[_AMBIGUOUS]:
            return path
    return None


def open_eager(weights: str, spec: DetectorSpec, purpose: str) -> EagerReference:
    """Return the network that an artifact of ``spec`` was exported from.

    Args:
        weights: ``pretrained``, ``random``, a path or a URL.
        spec: of the artifact.
        purpose: what needs torch, for the error's message.

    Raises:
        MissingPackageError: torch is not installed.
        WeightsError: the weights are unusable or of another model.
    """
    try:
        from effdet_deploy.pytorch.reference import EagerReference, build_network
    except ImportError as error:
        raise MissingPackageError("torch", purpose, "export") from error
    return EagerReference(build_network(spec, weights), spec)


def layer_sources(
    candidate: Path, reference: Side, given: str
) -> tuple[tuple[GraphLayer, ...], LayerSource, LayerSource]:
    """Return the layers of a candidate, and both sides as sources of them.

    Args:
        candidate: an ONNX file of ours.
        reference: opened.
        given: what the user named as the reference: another ONNX file, or weights.

    Raises:
        ModelFileError: a file has no nodes named as ours are.
    """
    from effdet_deploy.onnxgraph.layers import GraphLayers

    ours = GraphLayers(candidate)
    if (path := exported_model(given)) is not None:
        return ours.layers, ours, GraphLayers(path)
    from effdet_deploy.pytorch.eager_layers import EagerLayers

    network = cast("EagerReference", reference).network
    return ours.layers, ours, EagerLayers(network, ours.spec.input, ours.layers)


def eager_detector(specs: Sequence[DetectorSpec], weights: str) -> Detector:
    """Return the network of an exported model in eager PyTorch, with effdet's post-processing.

    Args:
        specs: of the exported models that it is measured beside; it is the network of the first,
            and gives as many rows as the one that gives most.
        weights: ``pretrained``, ``random``, a path or a URL.

    Raises:
        MissingPackageError: torch is not installed.
        WeightsError: the weights are unusable or of another model.
    """
    output = dataclasses.replace(
        specs[0].output,
        score_threshold=0.0,
        iou_threshold=_EFFDET_IOU,
        max_detections=max(each.output.max_detections for each in specs),
    )
    spec = dataclasses.replace(specs[0], output=output)
    return Detector(open_eager(weights, spec, f"measuring the weights '{weights}'"))
