"""From an ONNX file to a delivered engine: build, sidecar, and a test run if there is a GPU."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from typing import TYPE_CHECKING

from effdet_deploy.artifact.modelfile import (
    check_external_files,
    read_sidecar,
    read_spec,
    require_content,
)
from effdet_deploy.detection.pictures import verification_images
from effdet_deploy.errors import ModelFileError, UsageError
from effdet_deploy.evaluation.sets import read_pictures
from effdet_deploy.exporters.build_options import BuildOptions
from effdet_deploy.exporters.delivery import Artifact, deliver_artifact, precision_file_path
from effdet_deploy.exporters.options import require_batch, require_use_of_pictures
from effdet_deploy.exporters.tensorrt.messages import Request
from effdet_deploy.exporters.tensorrt.process import require_gpu_to_refit, run_builder
from effdet_deploy.exporters.tensorrt.timing_cache import require_own_note
from effdet_deploy.files import (
    require_no_folder_at_sidecar,
    require_writable_target,
    sha256_file,
    staging,
)
from effdet_deploy.preflight import require_onnx
from effdet_deploy.progress import Progress, silent
from effdet_deploy.runtimes.gpu import list_gpus
from effdet_deploy.runtimes.tensorrt.cuda import require_cuda

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from effdet_deploy.artifact.modelfile import Sidecar
    from effdet_deploy.artifact.spec import BatchSpec, DetectorSpec
    from effdet_deploy.parity.verdict import ParityReport


def build_engine(
    onnx_path: Path,
    engine_path: Path,
    options: BuildOptions | None = None,
    progress: Progress = silent,
    *,
    batch: BatchSpec | None = None,
    images: Path | None = None,
    verify: bool = True,
    precision_file: Path | None = None,
) -> Artifact:
    """Build ``engine_path`` from an ONNX file of ours and compare both on a GPU.

    This needs no torch. The builder's process first checks whether its release of TensorRT accepts
    the file, and then parses it.

    Args:
        onnx_path: the model, in the precision that the engine shall have.
        engine_path: where the engine goes; its sidecar, a JSON file, goes beside it.
        options: how to build.
        progress: called with the phase of the builder, its step and the seconds since the start.
        batch: the batch sizes that the engine takes; default: those of the ONNX file.
        images: a folder of pictures to compare on; default: four generated pictures.
        verify: compare the engine with the file; without a GPU this is not possible.
        precision_file: the file that says which layers are INT8; a copy is put beside the engine.

    Raises:
        UsageError: TensorRT does not support the model's options, or the target is not writable.
        ModelFileError: the ONNX file is unusable, or TensorRT refuses it or crashes.
        MissingError: TensorRT, its GPU, the package ``onnx``, or memory is missing.
        VerificationError: the engine differs from the ONNX file; it is kept as
            ``ENGINE.failed``.
    """
    options = options or BuildOptions()
    require_use_of_pictures(images, verify=verify)
    require_writable_target(engine_path)
    require_no_folder_at_sidecar(engine_path)
    require_onnx()
    spec = _buildable_spec(onnx_path, options, batch)
    recorded = read_sidecar(onnx_path)
    digest = sha256_file(onnx_path)
    pictures = verification_images(spec.input, read_pictures(images), spec.batch) if verify else []
    require_ready(options, verify=verify)
    with staging(engine_path) as directory:
        staged = directory / engine_path.name
        spec = _compiled(onnx_path, digest, staged, spec, options, progress)
        report = None
        if verify and spec.engine is not None and spec.engine.can_run_where_built:
            progress("comparing the engine with the ONNX file")
            report = _verify(staged, onnx_path, spec, pictures)
        evidence = _evidence(digest, recorded, report)
        if precision_file is not None:
            shutil.copyfile(precision_file, precision_file_path(staged))
        notes = _not_run(spec, evidence["verified"], verify=verify)
        return deliver_artifact(
            staged, engine_path, spec, report, notes, reference="its ONNX file", extra=evidence
        )


def require_ready(options: BuildOptions, *, verify: bool) -> None:
    """Check in advance what a build needs at its end.

    Raises:
        UsageError: the timing cache cannot be read or written, or another file has the name of the
            sidecar of the cache.
        DeviceError: TensorRT-RTX needs a GPU to build with these options.
        MissingPackageError: there is a GPU, but no package to run the engine on it.
    """
    cache = options.timing_cache
    if cache is not None:
        if not cache.is_file():
            require_writable_target(cache)
        require_own_note(cache)
    if options.backend == "tensorrt-rtx":
        require_gpu_to_refit(options, has_gpu=bool(list_gpus()))
    if verify and not options.strip_plan and list_gpus():
        require_cuda()


def _buildable_spec(
    onnx_path: Path, options: BuildOptions, batch: BatchSpec | None
) -> DetectorSpec:
    """Read the file's spec for the requested batch, and refuse what cannot be built."""
    require_content(onnx_path, "onnx")
    spec = read_spec(onnx_path, "onnx")
    check_external_files(onnx_path, spec)
    if batch is not None:
        require_batch(batch)
        if batch.minimum < spec.batch.minimum or batch.maximum > spec.batch.maximum:
            raise UsageError(
                f"--batch {batch} was asked for, but the ONNX file takes a batch of {spec.batch}.",
                "Choose sizes within this range, or export the ONNX file again with another "
                "--batch.",
            )
        spec = dataclasses.replace(spec, batch=batch)
    # A DLA computes in FP16 or INT8 at one batch size; otherwise all layers would run on the GPU.
    fits_dla = spec.precision.kind != "fp32" and spec.batch.is_static
    if options.dla_core is not None and not fits_dla:
        raise UsageError(
            "A DLA takes an FP16 or INT8 graph with a fixed batch size, but the ONNX file is "
            f"{spec.precision.kind.upper()} for a batch of {spec.batch}.",
            "Export it with --fp16 and one batch size, or leave --dla-core out.",
        )
    return spec


def _compiled(
    onnx_path: Path,
    digest: str,
    plan: Path,
    spec: DetectorSpec,
    options: BuildOptions,
    progress: Progress,
) -> DetectorSpec:
    """Write the engine to ``plan`` and return its spec.

    ``digest`` is the SHA-256 that the ONNX file had at the start.
    """
    request = Request(options, str(onnx_path.resolve()), str(plan.resolve()), spec.batch)
    engine = run_builder(request, progress)
    if sha256_file(onnx_path) != digest:
        raise ModelFileError(
            f"'{onnx_path}' was changed while the engine was being built from it.",
            "Build the engine again.",
        )
    tools = spec.tools | {engine.backend: engine.version}
    # The weights are inside an engine, so no data file belongs to it.
    return dataclasses.replace(spec, engine=engine, tools=tools, external_files=())


def _verify(
    staged: Path, onnx_path: Path, spec: DetectorSpec, images: Sequence[NDArray[np.uint8]]
) -> ParityReport:
    """Run the engine at its smallest and largest batch and compare every row, without torch.

    The expected rows are those of exact NMS on the ONNX file's raw heads.
    """
    from effdet_deploy.parity.comparison import verify
    from effdet_deploy.parity.side import RuntimeSide, open_heads, side_of
    from effdet_deploy.runtimes.tensorrt.engine_runtime import open_engine

    with contextlib.ExitStack() as stack:
        settings = {"backend": "onnxruntime", "device": "cpu"}
        raw = open_heads(onnx_path, read_spec(onnx_path, "onnx"), stack, **settings)
        engine = stack.enter_context(contextlib.closing(open_engine(staged, spec)))
        return verify(side_of(engine), RuntimeSide(raw.spec, raw=raw), images)


def _not_run(spec: DetectorSpec, verified: str, *, verify: bool) -> tuple[str, ...]:
    """Return a note on why the engine was not run; an empty tuple if it was run."""
    engine = spec.engine
    if engine is None or verified == "engine":
        return ()
    why = {
        "verification was switched off": not verify,
        "its weights are stripped": engine.is_stripped,
        "there is no GPU here": not engine.gpu,
    }
    reason = next(each for each, holds in why.items() if holds)
    compared = "was compared" if verified == "onnx" else "has no record of a comparison"
    if verified == "onnx" and spec.output.nms == "plugin":
        compared += " up to its NMS plugin"
    made_by = f"{engine.backend} {engine.version}"
    return (f"the ONNX file {compared}; the engine was built by {made_by} and not run: {reason}",)


def _evidence(digest: str, recorded: Sidecar | None, report: ParityReport | None) -> dict[str, Any]:
    """Return further facts for the sidecar: what was compared, and the ONNX file's SHA-256.

    ``digest`` is the SHA-256 of the ONNX file.
    """
    of_this_file = recorded is not None and recorded.sha256 == digest
    compared = recorded.verification if recorded is not None and of_this_file else None
    evidence: dict[str, Any] = {
        "verified": "engine" if report is not None else "onnx" if compared else "nothing",
        "onnx": {"sha256": digest, "verification": compared},
    }
    return evidence if report is not None else evidence | {"verification": compared}
