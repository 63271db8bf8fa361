"""``effdet-deploy export`` and ``effdet-export``: a checkpoint in, a verified artifact out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer  # noqa: TC002 - Typer reads the annotations

from effdet_deploy.cli import console
from effdet_deploy.cli import engine_options as engine
from effdet_deploy.cli import export_options as option
from effdet_deploy.cli import options as shared
from effdet_deploy.errors import UsageError

if TYPE_CHECKING:
    from effdet_deploy.exporters import Artifact


def run(
    context: typer.Context,
    output: option.Output,
    variant: option.Variant = None,
    config: option.Config = None,
    weights: option.Weights = "pretrained",
    num_classes: option.NumClasses = None,
    labels: option.Labels = None,
    image_size: option.ImageSize = "",
    batch: option.Batch = "1",
    fp32: option.Fp32 = False,
    fp16: option.Fp16 = False,
    int8: option.Int8 = False,
    target: option.Target = None,
    calibration: option.Calibration = None,
    max_map_drop: option.MaxMapDrop = None,
    eval_data: option.EvalData = None,
    eval_images: option.EvalImages = None,
    precision_file: option.PrecisionFile = None,
    input_kind: option.InputKind = "uint8",
    channel_order: option.ChannelOrder = "rgb",
    nms: option.Nms = "static",
    nms_steps: option.NmsSteps = 16,
    box_format: option.BoxFormat = "xyxy",
    score_threshold: option.ScoreThreshold = 0.01,
    iou_threshold: option.IouThreshold = 0.5,
    max_detections: option.MaxDetections = 100,
    candidates: option.Candidates = 1000,
    opset: option.Opset = 20,
    backend: engine.Backend = "tensorrt",
    workspace: engine.Workspace = None,
    opt_level: engine.OptLevel = None,
    timing_cache: engine.TimingCache = None,
    tf32: engine.Tf32 = False,
    hardware_compatible: engine.HardwareCompatible = "none",
    version_compatible: engine.VersionCompatible = False,
    refit: engine.Refit = False,
    strip_plan: engine.StripPlan = False,
    dla_core: engine.DlaCore = None,
    keep_onnx: option.KeepOnnx = None,
    verify: option.Verify = True,
    verify_images: shared.VerifyImages = None,
    seed: option.Seed = 0,
    json_file: shared.JsonFile = None,
) -> None:
    """Turn a checkpoint into one verified graph: uint8 image in, boxes out.

    The suffix of OUTPUT decides what is made. The export ends by running the artifact and
    comparing it with eager PyTorch; one that differs is kept as OUTPUT.failed.
    """
    from effdet_deploy.exporters import export
    from effdet_deploy.exporters.delivery import plan_path

    _require_variant(variant, weights)
    console.require_targets(json_file)
    read = [Path(weights), *map(context.params.get, option.READ)]
    made = console.with_sidecars(output, *((keep_onnx,) if keep_onnx else ()))
    console.require_distinct(json_file, *made, plan_path(output), *read)
    console.require_distinct(keep_onnx, output, *read)
    console.require_distinct(timing_cache, *made, Path(weights))
    options = option.export_options(context.params)
    begun = time.monotonic()
    with console.stages() as stage:
        artifact = export(variant, output, options, stage)
    console.write_json(json_file, artifact.to_dict())
    _conclude(artifact, time.monotonic() - begun)


def _require_variant(variant: str | None, weights: str) -> None:
    """Say what is missing before torch is imported, which takes seconds."""
    if variant is None and weights in ("pretrained", "random"):
        raise UsageError(
            f"--weights {weights} needs a --variant.",
            "Pass --variant d0, or --weights with a checkpoint that says what it is.",
        )


def _conclude(artifact: Artifact, seconds: float) -> None:
    """Say what was written, how it compared and what to run next."""
    from effdet_deploy.reports.verification import render

    screen = console.stdout()
    if artifact.report is not None:
        screen.print(render(artifact.report, _what_was_compared(artifact)))
    else:
        screen.print("[!] not verified: --no-verify was given", markup=False)
    for note in artifact.notes:
        screen.print(f"[!] {note}", markup=False)
    size = artifact.size / 1e6
    screen.print(
        f"[✓] wrote {artifact.path} ({size:.1f} MB, {artifact.spec.variant}, "
        f"{artifact.spec.precision.kind.upper()}) in {seconds:.0f} s",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    screen.print(
        f"    next: {_next_step(artifact)}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _what_was_compared(artifact: Artifact) -> str:
    engine = artifact.spec.engine
    if engine is None:
        return "verification"
    return f"verification of the {'engine' if engine.can_run_where_built else 'ONNX file'}"


def _next_step(artifact: Artifact) -> str:
    """Return the command that uses the artifact, on the machine that can."""
    path, engine = artifact.path, artifact.spec.engine
    names = f"{path.name} and {artifact.sidecar.name}"
    if artifact.spec.output.nms == "plugin" and engine is None:
        build = f"effdet-deploy build {path.name} {path.stem}.engine"
        return f"copy {names} to the machine with TensorRT and run: {build}"
    if engine is not None and engine.is_stripped:
        return f"refit {path.name} with its weights before it is run, as TensorRT's Refitter does"
    if engine is not None and not engine.gpu:
        run = f"effdet-deploy detect {path.name} PICTURE.jpg"
        return f"copy {names} to the machine with the GPU and run: {run}"
    backend = " --backend openvino" if artifact.spec.precision.target == "openvino" else ""
    return f"effdet-deploy detect {path} PICTURE.jpg{backend}"
