"""Opening the candidates and the reference of a comparison, as the user named them."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from effdet_deploy.artifact.modelfile import SUFFIXES, recognize
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
"""The IoU threshold of effdet's own post-processing."""
_AMBIGUOUS = ".pt"
"""A suffix that both TorchScript archives and checkpoints have."""


@dataclass(frozen=True)
class HowToRun:
    """How artifacts are run; see :func:`effdet_deploy.runtimes.load_runtime`."""

    backend: str = "auto"
    device: str = "auto"
    threads: int | None = None
    trust: bool = False
    allow_saturation: bool = False


def open_references(
    given: str, specs: Mapping[Path, DetectorSpec], how: HowToRun, stack: ExitStack
) -> dict[Path, Side]:
    """Open the references of the candidates; candidates that fit the same reference share it.

    Args:
        given: the path of an exported model; or weights, which take the candidate's variant.
        specs: the candidates' specs, by path.
        how: how an exported model is run.
        stack: closes the references at its end.

    Raises:
        MissingPackageError: weights were named, but torch is not installed.
        WeightsError: the weights are unusable or belong to another model.
    """
    path = exported_model(given)
    if path is not None:
        exported: Side = open_side(path, stack, **dataclasses.asdict(how))
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
    """Return the name of the reference in a report."""
    return f"PyTorch, {base_name(given)}" if exported_model(given) is None else str(Path(given))


def require_layers(candidates: Sequence[Path], reference: str) -> None:
    """Check that the layers of the candidates and of the reference can be read.

    Raises:
        UsageError: one of them is an exported model but not an ONNX file.
        MissingPackageError: the ``onnx`` package is not installed.
    """
    for path in filter(None, (*candidates, exported_model(reference))):
        if SUFFIXES.get(path.suffix.lower()) != "onnx":
            raise UsageError(
                f"--layers only works on ONNX files, but '{path.name}' is not an ONNX file.",
                "Name the ONNX file that this file was made from, or leave --layers out.",
            )
    require_package("onnx", "comparing layers", "export")


def require_one_size(path: Path, mine: InputSpec, known: InputSpec) -> None:
    """Check that a candidate and its reference take the same input size, as layers require.

    Raises:
        UsageError: the sizes differ, so that layers cannot be compared.
    """
    sizes = []
    for each in (mine, known):
        frames = "x".join(map(str, each.source_size or ()))
        resized = f" resized from frames of {frames}" if frames else ""
        sizes.append(f"{each.height}x{each.width}{resized}")
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"--layers needs networks of one image size, but '{path.name}' takes {sizes[0]}, and "
            f"the reference {sizes[1]}.",
            "Export both at the same size, or leave --layers out.",
        )


def exported_model(name: str) -> Path | None:
    """Return the path of an exported model, recognized by its suffix; None for weights.

    For the suffix ``.pt``, the content decides.
    """
    path = Path(name)
    suffix = path.suffix.lower()
    if suffix != _AMBIGUOUS:
        return path if suffix in SUFFIXES else None
    with contextlib.suppress(ModelFileError):
        if path.is_file() and recognize(path) == SUFFIXES[_AMBIGUOUS]:
            return path
    return None


def open_eager(weights: str, spec: DetectorSpec, purpose: str) -> EagerReference:
    """Return the network that an artifact of ``spec`` was exported from.

    Args:
        weights: ``pretrained``, ``random``, a path or a URL.
        spec: the spec of the artifact.
        purpose: the activity that needs torch, for the error message.

    Raises:
        MissingPackageError: torch is not installed.
        WeightsError: the weights are unusable or belong to another model.
    """
    try:
        from effdet_deploy.pytorch.reference import EagerReference, build_network
    except ImportError as error:
        raise MissingPackageError("torch", purpose, "export") from error
    return EagerReference(build_network(spec, weights), spec)


def layer_sources(
    candidate: Path, reference: Side, given: str
) -> tuple[tuple[GraphLayer, ...], LayerSource, LayerSource]:
    """Return a candidate's layers, and the candidate and the reference as sources of layers.

    Args:
        candidate: an ONNX file of ours.
        reference: the opened reference.
        given: the reference as the user named it: another ONNX file, or weights.

    Raises:
        ModelFileError: a file has no nodes with our names.
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
        specs: the specs of the exported models that it is compared with; the network is that of the
            first, and the number of rows is the largest of all.
        weights: ``pretrained``, ``random``, a path or a URL.

    Raises:
        MissingPackageError: torch is not installed.
        WeightsError: the weights are unusable or belong to another model.
    """
    output = dataclasses.replace(
        specs[0].output,
        score_threshold=0.0,
        iou_threshold=_EFFDET_IOU,
        max_detections=max(each.output.max_detections for each in specs),
    )
    spec = dataclasses.replace(specs[0], output=output)
    return Detector(open_eager(weights, spec, f"measuring the weights '{weights}'"))
