"""TorchScript export: the pipeline compiled by ``torch.jit.script``, with the spec inside."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from importlib import metadata
from typing import TYPE_CHECKING

from effdet_deploy._version import __version__
from effdet_deploy.artifact.spec import METADATA_KEY
from effdet_deploy.detection.pictures import verification_images
from effdet_deploy.exporters.candidates import settle_candidates
from effdet_deploy.exporters.delivery import Artifact, deliver_artifact, scratch_path
from effdet_deploy.exporters.source import load_source, run_as_given, specification_of
from effdet_deploy.files import staging
from effdet_deploy.parity.comparison import verify
from effdet_deploy.parity.side import RuntimeSide
from effdet_deploy.runtimes import load_runtime

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from effdet_deploy.exporters.material import Material
    from effdet_deploy.exporters.options import ExportOptions
    from effdet_deploy.progress import Progress

_TOOLS = ("torch", "timm", "numpy")


def export(
    variant_or_model: str | nn.Module | None,
    output: Path,
    options: ExportOptions,
    material: Material,
    progress: Progress,
) -> Artifact:
    """Export to ``output``, a ``.torchscript`` file; see :func:`effdet_deploy.exporters.export`."""
    from effdet_deploy.pytorch.graph import create_pipeline, fold_for_inference
    from effdet_deploy.pytorch.reference import reference_of
    from effdet_deploy.pytorch.scripting import script_archive

    source = load_source(variant_or_model, options, progress)
    spec = dataclasses.replace(
        specification_of(source, options, material.labels),
        tools={"effdet-deploy": __version__} | {name: metadata.version(name) for name in _TOOLS},
    )
    material = material.decoded(spec.input, progress)
    source = run_as_given(source, spec, material.verification, progress)
    reference = reference_of(source, spec) if options.verify else None
    images = verification_images(spec.input, material.verification, spec.batch)
    spec, settled = settle_candidates(
        spec, options, reference, images, len(material.verification), progress
    )
    notes = (*source.notes, *material.notes_for(spec), *settled)
    with staging(output) as directory:
        progress("compiling the pipeline")
        network = fold_for_inference(source.model, spec.input)
        staged = directory / output.name
        pipeline = create_pipeline(network, spec)
        staged.write_bytes(script_archive(pipeline, {METADATA_KEY: spec.to_json()}))
        report = None
        if reference is not None:
            progress("comparing with eager PyTorch")
            heads = scratch_path(staged, "heads")
            pipeline = create_pipeline(network, spec.of_heads)
            heads.write_bytes(script_archive(pipeline, {METADATA_KEY: spec.of_heads.to_json()}))
            with (
                closing(load_runtime(heads, "torchscript", "cpu")) as raw,
                closing(load_runtime(staged, "torchscript", "cpu")) as whole,
            ):
                candidate = RuntimeSide(spec, None if spec.output.nms == "none" else whole, raw)
                report = verify(candidate, reference, images)
        return deliver_artifact(staged, output, spec, report, notes)
