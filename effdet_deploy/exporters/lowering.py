"""From the FP32 graph to the precision that was asked for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import onnx

from effdet_deploy.exporters.finishing import write_onnx
from effdet_deploy.parity.samples import verification_images
from effdet_deploy.precision.fp16 import find_unfit, nodes_touching, to_half
from effdet_deploy.precision.ranges import graph_inputs

if TYPE_CHECKING:
    from pathlib import Path

    from effdet_deploy.exporters.artifact import Progress
    from effdet_deploy.exporters.options import ExportOptions
    from effdet_deploy.spec import DetectorSpec

    Lowered = tuple[DetectorSpec, tuple[str, ...]]

_NAMED = 3


def lower_precision(
    path: Path, spec: DetectorSpec, options: ExportOptions, progress: Progress
) -> Lowered:
    """Rewrite the FP32 graph at ``path`` in the precision that ``spec`` states.

    Returns:
        The spec as written, which names what stayed in FP32, and what the user should be told.

    Raises:
        DataError: a folder of images is unusable.
        ImageError: one of its images is.
    """
    if spec.precision.kind == "fp32":
        return spec, ()
    return _lower_to_fp16(path, spec, options, progress)


def _lower_to_fp16(
    path: Path, spec: DetectorSpec, options: ExportOptions, progress: Progress
) -> Lowered:
    progress("looking for what FP16 cannot hold")
    folder = options.calibration or options.verify_images
    model = onnx.load(path)
    images = verification_images(spec.input, folder)
    unfit = find_unfit(model, graph_inputs(images, spec))
    kept = nodes_touching(model, [each.value for each in unfit])
    to_half(model, kept)
    notes = [] if folder else [_SYNTHETIC]
    if unfit:
        named = "; ".join(map(str, unfit[:_NAMED])) + ("; …" if len(unfit) > _NAMED else "")
        notes.append(f"FP16 cannot hold {named}: {len(kept)} operations stay in FP32.")
    precision = dataclasses.replace(spec.precision, kept=kept)
    return write_onnx(model, dataclasses.replace(spec, precision=precision), path), tuple(notes)


_SYNTHETIC = (
    "FP16's limits were checked on synthetic pictures; pass --calibration DIR with your own."
)
