"""``effdet-deploy export`` and ``effdet-export``: a checkpoint in, a verified artifact out."""

from __future__ import annotations

import shlex
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer  # noqa: TC002 - Typer reads the annotations

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option
from effdet_deploy.errors import UsageError
from effdet_deploy.exporters.build_options import BuildOptions
from effdet_deploy.exporters.options import PRECISIONS, ExportOptions
from effdet_deploy.files import base_name, read_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

EXPORT, BUILD = ExportOptions(), BuildOptions()
"""Where the defaults stand."""
_READ = (
    *("config", "labels", "calibration", "verify_images", "eval_data", "eval_images"),
    *("precision_file", "timing_cache"),
)
"""The options whose files an export reads, beside its weights."""
_NOT_STORED = ("output", "keep_onnx", "json_file")
_OPTION_NAMES = {"input_kind": "input", "precision_file": "precision"}


def run(
    context: typer.Context,
    output: option.Output,
    variant: option.Variant = None,
    config: option.Config = None,
    weights: option.Weights = EXPORT.weights,
    num_classes: option.NumClasses = EXPORT.num_classes,
    labels: option.Labels = EXPORT.labels,
    image_size: option.ImageSize = "",
    batch: option.Batch = str(EXPORT.batch),
    fp32: option.Fp32 = False,
    fp16: option.Fp16 = False,
    int8: option.Int8 = False,
    target: option.Target = EXPORT.target,
    calibration: option.Calibration = EXPORT.calibration,
    max_map_drop: option.MaxMapDrop = EXPORT.max_map_drop,
    eval_data: option.EvalData = EXPORT.eval_data,
    eval_images: option.EvalImages = EXPORT.eval_images,
    precision_file: option.PrecisionFile = EXPORT.precision_file,
    input_kind: option.InputKind = EXPORT.input_kind,
    channel_order: option.ChannelOrder = EXPORT.channel_order,
    nms: option.Nms = EXPORT.nms,
    nms_steps: option.NmsSteps = EXPORT.nms_steps,
    box_format: option.BoxFormat = EXPORT.box_format,
    score_threshold: option.ScoreThreshold = EXPORT.score_threshold,
    iou_threshold: option.IouThreshold = EXPORT.iou_threshold,
    max_detections: option.MaxDetections = EXPORT.max_detections,
    candidates: option.Candidates = EXPORT.candidates,
    opset: option.Opset = EXPORT.opset,
    backend: option.Builder = BUILD.backend,
    workspace: option.Workspace = BUILD.workspace,
    opt_level: option.OptLevel = BUILD.opt_level,
    timing_cache: option.TimingCache = BUILD.timing_cache,
    tf32: option.Tf32 = BUILD.tf32,
    hardware_compatible: option.HardwareCompatible = BUILD.hardware_compatible,
    version_compatible: option.VersionCompatible = BUILD.version_compatible,
    refit: option.Refit = BUILD.refit,
    strip_plan: option.StripPlan = BUILD.strip_plan,
    dla_core: option.DlaCore = BUILD.dla_core,
    keep_onnx: option.KeepOnnx = EXPORT.keep_onnx,
    verify: option.Verify = EXPORT.verify,
    verify_images: option.VerifyImages = EXPORT.verify_images,
    seed: option.Seed = EXPORT.seed,
    json_file: option.JsonFile = None,
) -> None:
    """Turn a checkpoint into one verified graph: uint8 image in, boxes out.

    The suffix of OUTPUT decides what is made. The export ends by running the artifact and
    comparing it with eager PyTorch; one that differs is kept as OUTPUT.failed.
    """
    _export(context.params)


def _export(given: Mapping[str, Any]) -> None:
    from effdet_deploy.exporters import export
    from effdet_deploy.exporters.delivery import plan_path
    from effdet_deploy.reports.delivered import render_export

    variant, weights, output = given["variant"], given["weights"], given["output"]
    # Said before torch is imported, which takes seconds.
    if variant is None and weights in ("pretrained", "random"):
        raise UsageError(
            f"--weights {weights} needs a --variant.",
            "Pass --variant d0, or --weights with a checkpoint that says what it is.",
        )
    read = [Path(weights), *map(given.get, _READ)]
    made = console.with_sidecars(output, given["keep_onnx"])
    console.require_results(given["json_file"], apart_from=(*made, plan_path(output), *read))
    console.require_distinct(given["keep_onnx"], output, *read)
    console.require_distinct(given["timing_cache"], *made, Path(weights))
    options = export_options(given)
    begun = time.monotonic()
    with console.stages() as stage:
        artifact = export(variant, output, options, stage)
    console.write_json(given["json_file"], artifact.to_dict())
    console.stdout().print(render_export(artifact, time.monotonic() - begun))


def export_options(given: Mapping[str, Any]) -> ExportOptions:
    """Turn the command's parameters into checked options; raises UsageError."""
    from effdet_deploy.exporters.options import parse_batch, parse_image_size

    size = given["image_size"]
    precisions = [name for name in PRECISIONS if given[name]]
    if len(precisions) > 1:
        raise UsageError(
            f"{' and '.join(f'--{name}' for name in precisions)} contradict each other.",
            "Choose one.",
        )
    same = {each.name: given[each.name] for each in fields(ExportOptions) if each.name in given}
    overrides = {}
    if given["config"] is not None:
        remedy = 'It holds a JSON object such as {"fpn_channels": 88}.'
        overrides = read_json_object(given["config"], "The config file", remedy)
    return ExportOptions(
        **same
        | {
            "image_size": parse_image_size(size) if size else EXPORT.image_size,
            "overrides": overrides,
            "batch": parse_batch(given["batch"]),
            "precision": precisions[0] if precisions else EXPORT.precision,
            "build": option.build_options(given),
            "command": stored_command(given),
        }
    )


def stored_command(given: Mapping[str, Any]) -> str:
    """Return the command to store: base names only, OUTPUT left out."""
    words = ["effdet-export"]
    defaults = vars(BUILD)
    for name, value in given.items():
        is_left_out = value is None or value is False or value == ""
        is_default = name in defaults and value == defaults[name]
        if name in _NOT_STORED or is_left_out or is_default:
            continue
        word = f"--{_OPTION_NAMES.get(name, name).replace('_', '-')}"
        if value is True:
            words += [] if name == "verify" else [word]
        elif isinstance(value, Path):
            words += [word, value.name]
        else:
            # Of an address its end: the rest may hold a key.
            words += [word, base_name(str(value)) if name == "weights" else str(value)]
    return shlex.join([*words, *(() if given["verify"] else ("--no-verify",))])
