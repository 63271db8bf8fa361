"""From a checkpoint to an engine: a verified ONNX file, and the engine built from it."""

from __future__ import annotations

import dataclasses
import warnings
from typing import TYPE_CHECKING

from effdet_deploy.artifact.modelfile import read_spec
from effdet_deploy.errors import (
    EffdetDeployWarning,
    InputError,
    MissingError,
    UsageError,
    VerificationError,
)
from effdet_deploy.exporters import onnx
from effdet_deploy.exporters.build_options import BuildOptions
from effdet_deploy.exporters.delivery import (
    failed_path,
    is_precision_file_of,
    moves_of,
    precision_file_path,
)
from effdet_deploy.exporters.tensorrt.engine import build_engine, require_ready
from effdet_deploy.exporters.tensorrt.other_machine import finish_elsewhere
from effdet_deploy.exporters.tensorrt.process import require_builder
from effdet_deploy.files import (
    deliver_together,
    require_no_folder_at_sidecar,
    require_writable_target,
    sidecar_path,
    staging,
)
from effdet_deploy.onnxgraph.nms_plugin import NOT_RUN

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from effdet_deploy.exporters.delivery import Artifact
    from effdet_deploy.exporters.material import Material
    from effdet_deploy.exporters.options import ExportOptions
    from effdet_deploy.progress import Progress


def export(
    variant_or_model: str | nn.Module | None,
    output: Path,
    options: ExportOptions,
    material: Material,
    progress: Progress,
) -> Artifact:
    """Export to ``output``, an engine; see :func:`effdet_deploy.exporters.export`.

    On a machine that cannot build engines, this is announced first; the ONNX file is then made and
    kept.

    Raises:
        MissingError: this machine cannot build the engine; the message names the ONNX file and the
            commands that finish the work on another machine.
        UsageError: another file has the name under which the ONNX file would be kept.
    """
    if options.keep_onnx is not None:
        require_writable_target(options.keep_onnx)
        require_no_folder_at_sidecar(options.keep_onnx)
    progress("looking for the builder")
    try:
        require_builder(options.build)
    except MissingError as missing:
        kept = options.keep_onnx or output.with_suffix(".onnx")
        _require_free(kept, options)
        warnings.warn(
            f"{missing.cause} The engine cannot be built here; the ONNX file is made and kept as "
            f"'{kept}'.",
            EffdetDeployWarning,
            stacklevel=3,
        )
        model = onnx.export(variant_or_model, kept, _for_onnx(options), material, progress)
        for note in model.notes:
            warnings.warn(note, EffdetDeployWarning, stacklevel=3)
        raise finish_elsewhere(missing, model, output, options.build) from missing
    require_ready(options.build, verify=options.verify)
    with staging(output) as directory:
        kept = options.keep_onnx or directory / output.with_suffix(".onnx").name
        model = _export_onnx(variant_or_model, kept, output, options, material, progress)
        listed = precision_file_path(kept)
        moves = listed.is_file() and not is_precision_file_of(options.precision_file, output)
        engine = build_engine(
            model.path,
            output,
            options.build,
            progress,
            images=options.verify_images,
            verify=options.verify,
            precision_file=listed if moves else None,
        )
    # If the engine was not run, the comparison of its ONNX file is the result to show.
    report = engine.report or model.report
    notes = [each for each in model.notes if engine.report is None or each != NOT_RUN]
    return dataclasses.replace(engine, report=report, notes=(*notes, *engine.notes))


def _for_onnx(options: ExportOptions) -> ExportOptions:
    target = options.target or "tensorrt"
    return dataclasses.replace(options, target=target, build=BuildOptions(), keep_onnx=None)


def _require_free(kept: Path, options: ExportOptions) -> None:
    """Check that the ONNX file would replace only a file that the same command wrote before."""
    require_writable_target(kept)
    if options.keep_onnx is not None or not kept.exists():
        return
    try:
        spec = read_spec(kept, "onnx")
        laid_out = spec.precision.target == "tensorrt"
        same = laid_out and bool(options.command) and spec.command == options.command
    except InputError:
        same = False
    if not same:
        raise UsageError(
            f"The engine cannot be built here, and another file has the name '{kept}', under which "
            "the ONNX file would be kept.",
            "Choose another name with --keep-onnx FILE.onnx, or move that file away.",
        )


def _export_onnx(
    variant_or_model: str | nn.Module | None,
    kept: Path,
    output: Path,
    options: ExportOptions,
    material: Material,
    progress: Progress,
) -> Artifact:
    """Export the ONNX file; if its verification fails, it is moved out of the private directory."""
    try:
        return onnx.export(variant_or_model, kept, _for_onnx(options), material, progress)
    except VerificationError as error:
        failed = failed_path(kept)
        # If there is no such file, something other than the comparison failed.
        if options.keep_onnx is not None or not failed.is_file():
            raise
        final = output.with_name(failed.name)
        if is_precision_file_of(options.precision_file, output):
            precision_file_path(failed).unlink()
        external_files = read_spec(failed, "onnx").external_files
        deliver_together(moves_of(failed, final, external_files))
        raise VerificationError(
            f"The ONNX file differs from PyTorch, so no engine was built from it; it is kept as "
            f"'{final}'.",
            f"Read the comparison in '{sidecar_path(final)}' and report it to effdet-deploy.",
        ) from error
