"""From the FP32 graph to the requested precision."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import onnx

from effdet_deploy.artifact.placement import taken_input
from effdet_deploy.cache import cache_directory
from effdet_deploy.detection.letterbox import letterbox
from effdet_deploy.detection.pictures import verification_images
from effdet_deploy.exporters.delivery import precision_file_path
from effdet_deploy.onnxgraph.finishing import write_onnx
from effdet_deploy.onnxgraph.running import graph_inputs
from effdet_deploy.precision.fp16 import find_unfit, nodes_touching, to_half
from effdet_deploy.precision.int8.budget import BudgetedAccuracy
from effdet_deploy.precision.int8.convolutions import int8_share
from effdet_deploy.precision.int8.layout import LAYOUTS
from effdet_deploy.precision.int8.quantizer import Quantizer, Recipe
from effdet_deploy.precision.int8.saturation import losses_without_vnni
from effdet_deploy.precision.int8.sensitivity import search
from effdet_deploy.precision.precisionfile import read_precision_file, write_precision_file

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray
    from onnx import ModelProto

    from effdet_deploy.artifact.spec import DetectorSpec, PrecisionSpec, Target
    from effdet_deploy.evaluation.cocoset import CocoSet
    from effdet_deploy.exporters.material import Material
    from effdet_deploy.exporters.options import ExportOptions
    from effdet_deploy.precision.int8.sensitivity import Search
    from effdet_deploy.progress import Progress

    Lowered = tuple[DetectorSpec, tuple[str, ...]]
    Inputs = list[NDArray[Any]]

_SHOWN_NODES = 3
_SATURATION_IMAGES = 4
_GENERATED_PICTURES = (
    "FP16's limits were checked on generated pictures; pass --calibration DIR with your own."
)


def lower_precision(
    path: Path,
    spec: DetectorSpec,
    options: ExportOptions,
    material: Material,
    progress: Progress,
) -> Lowered:
    """Rewrite the FP32 graph at ``path`` in the precision that ``spec`` states.

    Returns:
        The spec as written, which names the layers in higher precision, and notes for the user.

    Raises:
        DataError: pictures, annotations or a precision file are unusable.
        ImageError: a picture is unusable.
        VerificationError: the mAP budget cannot be met.
    """
    if spec.precision.kind == "fp32":
        return spec, ()
    model = onnx.load(path)
    if spec.precision.kind == "fp16":
        images = verification_images(spec.input, material.ranges)
        # DeepStream's frames lie inside the input, with black around them.
        fitted = [letterbox(image, taken_input(spec.input))[0] for image in images]
        unfit = _unfit_nodes(model, graph_inputs(fitted, spec), progress)
        to_half(model, unfit.nodes)
        kept, notes = unfit.nodes, (() if material.ranges else (_GENERATED_PICTURES,)) + unfit.notes
    else:
        model, kept, notes = _lower_to_int8(model, path, spec, options, material, progress)
    precision = dataclasses.replace(spec.precision, kept=kept)
    return write_onnx(model, dataclasses.replace(spec, precision=precision), path), notes


@dataclasses.dataclass(frozen=True)
class _Unfit:
    """Nodes that must stay FP32 while the others become FP16, and notes on them."""

    nodes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _unfit_nodes(model: ModelProto, batches: Iterable[NDArray[Any]], progress: Progress) -> _Unfit:
    progress("looking for values that FP16 cannot hold")
    unfit = find_unfit(model, batches)
    kept = nodes_touching(model, [each.value for each in unfit])
    if not unfit:
        return _Unfit(kept)
    named = "; ".join(map(str, unfit[:_SHOWN_NODES])) + ("; …" if len(unfit) > _SHOWN_NODES else "")
    return _Unfit(kept, (f"FP16 cannot hold {named}: {len(kept)} operations stay in FP32.",))


def _lower_to_int8(
    model: ModelProto,
    path: Path,
    spec: DetectorSpec,
    options: ExportOptions,
    material: Material,
    progress: Progress,
) -> tuple[ModelProto, tuple[str, ...], tuple[str, ...]]:
    target: Target = spec.precision.target or "tensorrt"
    cache = cache_directory() / "calibration"
    batches = list(graph_inputs(material.ranges.letterboxed(spec.input), spec))
    has_half = LAYOUTS[target].half
    unfit = _unfit_nodes(model, batches, progress) if has_half else _Unfit()
    recipe = Recipe(int8_range=spec.precision.int8_range or "full")
    quantizer = Quantizer(model, batches, target, recipe, cache, progress)
    names, found = _layers_for_int8(
        quantizer, unfit.nodes, spec, options, material.evaluation, progress
    )
    progress("writing INT8")
    lowered = quantizer.quantized(names)
    ranges = _note_on_range(lowered, spec.precision, batches, progress)
    if has_half:
        to_half(lowered, unfit.nodes)
    write_precision_file(precision_file_path(path), quantizer.convolutions, names, found)
    higher = [each.name for each in quantizer.convolutions if each.name not in names]
    kept = tuple(dict.fromkeys((*higher, *unfit.nodes)))
    # Layers whose signal would drown in rounding errors stay out of INT8.
    drowned = quantizer.drowned if options.precision_file is None else {}
    spared = (
        f"{name} stays out of INT8: with a rounded input its signal-to-noise ratio would be "
        f"{snr:.0f} dB."
        for name, snr in drowned.items()
    )
    return lowered, kept, (*unfit.notes, *spared, *_summary(quantizer, names, found), *ranges)


def _layers_for_int8(
    quantizer: Quantizer,
    unfit: Collection[str],
    spec: DetectorSpec,
    options: ExportOptions,
    evaluation: CocoSet | None,
    progress: Progress,
) -> tuple[Collection[str], Search | None]:
    if options.precision_file is not None:
        listed = read_precision_file(
            options.precision_file, quantizer.convolutions, quantizer.layout
        )
        return [name for name in listed if name not in unfit], None
    # Layers with values that FP16 cannot hold do not become INT8 either.
    allowed = [name for name in quantizer.default() if name not in unfit]
    if options.max_map_drop is None or evaluation is None:
        return allowed, None
    accuracy = BudgetedAccuracy(quantizer, evaluation, spec)

    def measure(model: ModelProto) -> float:
        """Return the mAP of the FP32 graph, or of an INT8 graph in its final form."""
        if model is not quantizer.model and quantizer.layout.half:
            to_half(model, unfit)
        return accuracy.measure(model)

    found = search(quantizer, allowed, options.max_map_drop, measure, accuracy.journal, progress)
    kept = set(found.kept)
    names = [
        each.name
        for each in quantizer.convolutions
        if each.name in allowed and each.group not in kept
    ]
    return names, found


def _note_on_range(
    lowered: ModelProto, precision: PrecisionSpec, batches: Inputs, progress: Progress
) -> tuple[str, ...]:
    """Say on which processors the file is right, and what it would lose on others."""
    if precision.int8_range == "portable":
        return ("INT8 weights have the portable range: the file is right on every processor.",)
    if precision.instruction is None:
        return ()
    progress("computing the loss without VNNI")
    losses = losses_without_vnni(lowered, batches[:_SATURATION_IMAGES])
    if not losses:
        return ("On these pictures, no layer would lose precision without VNNI.",)
    worst = losses[0]
    text = (
        "INT8 weights have the full range, which needs a processor with VNNI: without it, "
        f"{len(losses)} layers would be wrong, most of all {worst.name} "
        f"({worst.changed:.0%} of its sums, signal-to-noise ratio {worst.snr_db:.1f} dB)."
    )
    return (text,)


def _summary(quantizer: Quantizer, names: Collection[str], found: Search | None) -> tuple[str, ...]:
    share = int8_share(quantizer.convolutions, names)
    text = f"INT8 does {share:.0%} of the multiply-accumulates, in {len(names)} convolutions"
    if found is None:
        return (f"{text}.",)
    kept = set(found.kept)
    ranking = tuple(
        f"  {each.group}: {each.macs_share:.1%} of the work, noise "
        f"{10 * math.log10(max(each.noise, 1e-12)):.1f} dB: "
        f"{'in higher precision' if each.group in kept else 'INT8'}"
        for each in found.losses
    )
    measured = f"{found.drop:.2f} points of mAP lost, found in {found.evaluations} measurements"
    return f"{text}; {measured}. Layers, costliest first:", *ranking
