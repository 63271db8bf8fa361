"""ONNX: the whole pipeline traced into one graph, simplified, finished and verified."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from effdet_deploy.detection.pictures import verification_images
from effdet_deploy.exporters.candidates import settle_candidates
from effdet_deploy.exporters.delivery import (
    Artifact,
    deliver_artifact,
    is_precision_file_of,
    precision_file_path,
    scratch_path,
)
from effdet_deploy.exporters.lowering import lower_precision
from effdet_deploy.exporters.source import load_source, run_as_given, specification_of
from effdet_deploy.exporters.verifying import verify_onnx
from effdet_deploy.files import staging
from effdet_deploy.onnxgraph.finishing import finish_traced, prepare_graph
from effdet_deploy.onnxgraph.nms_plugin import CONSIDERED, NOT_RUN, attach_plugin
from effdet_deploy.parity.tolerances import tolerance_for

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.exporters.material import Material
    from effdet_deploy.exporters.options import ExportOptions
    from effdet_deploy.progress import Progress
    from effdet_deploy.pytorch.network import EfficientDet


def export(
    variant_or_model: str | nn.Module | None,
    output: Path,
    options: ExportOptions,
    material: Material,
    progress: Progress,
) -> Artifact:
    """Export to ``output``, an ``.onnx`` file; see :func:`effdet_deploy.exporters.export`."""
    from effdet_deploy.pytorch.graph.resizing import cost_notes
    from effdet_deploy.pytorch.reference import reference_of

    source = load_source(variant_or_model, options, progress)
    asked = specification_of(source, options, material.labels)
    material = material.decoded(asked.input, progress)
    of_pictures = material.notes_for(asked)
    source = run_as_given(source, asked, material.verification, progress)
    reference = reference_of(source, asked) if options.verify else None
    images = verification_images(asked.input, material.verification, asked.batch)
    asked, settled = settle_candidates(
        asked, options, reference, images, len(material.verification), progress
    )
    with staging(output) as directory:
        staged = directory / output.name
        is_plugin = asked.output.nms == "plugin"
        # The plugin is added at the end; until then the graph ends in its heads.
        traced = asked.of_heads if is_plugin else asked
        spec, notes = write_graph(source.model, traced, options.opset, staged, progress)
        notes = (*source.notes, *cost_notes(spec.input), *of_pictures, *settled, *notes)
        spec, more = lower_precision(staged, spec, options, material, progress)
        notes += more
        if is_plugin:
            spec = attach_plugin(staged, spec, asked.output)
            notes += (CONSIDERED, NOT_RUN) if options.verify else (CONSIDERED,)
        report = None
        if reference is not None:
            progress("comparing with eager PyTorch")
            has_budget = options.max_map_drop is not None
            tolerance = tolerance_for(spec.precision.kind, has_budget=has_budget)
            report = verify_onnx(staged, spec, reference, images, tolerance)
        if is_precision_file_of(options.precision_file, output):
            # The user's own precision file stays as it is.
            precision_file_path(staged).unlink()
        return deliver_artifact(staged, output, spec, report, notes)


def write_graph(
    network: EfficientDet, spec: DetectorSpec, opset: int, path: Path, progress: Progress
) -> tuple[DetectorSpec, tuple[str, ...]]:
    """Trace ``network`` as ``spec`` asks and write the finished graph to ``path``.

    The directory of ``path`` must be the caller's own: intermediate files stay in it.

    Returns:
        The completed spec, and notes for the user.
    """
    from effdet_deploy.pytorch.tracing import example_input, trace

    progress("tracing the graph")
    traced = scratch_path(path, "traced")
    program = trace(network, spec, opset)
    prepare_graph(program.model.graph)
    program.save(traced)
    # The program holds a copy of the weights, in reference cycles that would stay until the end.
    del program
    gc.collect()
    progress("simplifying the graph")
    return finish_traced(traced, spec, path, example_input(spec).numpy())
