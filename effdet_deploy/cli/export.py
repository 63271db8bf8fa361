"""``effdet-deploy export`` and ``effdet-export``: a checkpoint in, a verified artifact out."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effdet_deploy.cli import console
from effdet_deploy.cli import engine_options as option
from effdet_deploy.errors import DataError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from effdet_deploy.exporters import Artifact, ExportOptions


def run(
    context: typer.Context,
    output: Annotated[
        Path,
        typer.Argument(metavar="OUTPUT", help="The file to write: .onnx, .torchscript or .engine."),
    ],
    variant: Annotated[
        str | None,
        typer.Option(help="d0…d7x, lite0…lite4, q0…q2 or any effdet name; default: the weights'."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON with config fields to override."),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="pretrained, random, a checkpoint's path, or a URL.")
    ] = "pretrained",
    num_classes: Annotated[int | None, typer.Option(metavar="N", help="Classes.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Class names, one a line, or COCO annotations."),
    ] = None,
    image_size: Annotated[
        str, typer.Option(metavar="N|HxW", help="Network input in pixels; default the variant's.")
    ] = "",
    batch: Annotated[
        str, typer.Option(metavar="N|MIN..MAX|MIN,OPT,MAX", help="Batch sizes to accept.")
    ] = "1",
    fp32: Annotated[bool, typer.Option("--fp32", help="FP32, the default.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="FP16 graph; needs --target.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="INT8 graph; needs --target.")] = False,
    target: Annotated[
        str | None, typer.Option(help="tensorrt, openvino or onnxruntime: who will run it.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Your pictures, for a reduced precision's ranges."),
    ] = None,
    max_map_drop: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="With --int8: keep what costs more mAP than this."),
    ] = None,
    eval_data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="COCO annotations that --max-map-drop is measured on."),
    ] = None,
    precision_file: Annotated[
        Path | None,
        typer.Option("--precision", metavar="FILE", help="Which layers are INT8."),
    ] = None,
    input_kind: Annotated[
        str, typer.Option("--input", help="uint8, float255 or normalized.")
    ] = "uint8",
    channel_order: Annotated[str, typer.Option(help="rgb or bgr.")] = "rgb",
    nms: Annotated[str, typer.Option(help="static, onnx or none.")] = "static",
    nms_steps: Annotated[
        int, typer.Option(metavar="N", help="Longest suppression chain resolved, less one.")
    ] = 16,
    box_format: Annotated[str, typer.Option(help="xyxy or yxyx.")] = "xyxy",
    score_threshold: Annotated[float, typer.Option(help="Floor inside the graph.")] = 0.01,
    iou_threshold: Annotated[float, typer.Option(help="Overlap above which NMS drops.")] = 0.5,
    max_detections: Annotated[int, typer.Option(metavar="N", help="Rows of the output.")] = 100,
    candidates: Annotated[int, typer.Option(metavar="N", help="Boxes that enter NMS.")] = 1000,
    opset: Annotated[int, typer.Option(help="ONNX opset, 18 to 23.")] = 20,
    backend: option.Backend = "tensorrt",
    workspace: option.Workspace = None,
    opt_level: option.OptLevel = None,
    timing_cache: option.TimingCache = None,
    tf32: option.Tf32 = False,
    hardware_compatible: option.HardwareCompatible = "none",
    version_compatible: option.VersionCompatible = False,
    refit: option.Refit = False,
    strip_plan: option.StripPlan = False,
    dla_core: option.DlaCore = None,
    keep_onnx: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the ONNX file of an engine here.")
    ] = None,
    verify: Annotated[bool, typer.Option(help="Compare with eager PyTorch.")] = True,
    verify_images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Pictures to compare on.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of --weights random.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="The result as JSON.")
    ] = None,
) -> None:
    """Turn a checkpoint into one verified graph: uint8 image in, boxes out.

    The suffix of OUTPUT decides what is made. The export ends by running the artifact and
    comparing it with eager PyTorch; one that differs is kept as OUTPUT.failed.
    """
    from effdet_deploy.exporters import export
    from effdet_deploy.files import require_writable_target

    _require_variant(variant, weights)
    if json_file is not None:
        require_writable_target(json_file)
    options = _options(context.params)
    begun = time.monotonic()
    with console.stages() as stage:
        artifact = export(variant, output, options, stage)
    _conclude(artifact, time.monotonic() - begun)
    if json_file is not None:
        console.write_json(json_file, _document(artifact))


def _require_variant(variant: str | None, weights: str) -> None:
    """Say what is missing before torch is imported, which takes seconds."""
    if variant is None and weights in ("pretrained", "random"):
        raise UsageError(
            f"--weights {weights} needs a --variant.",
            "Pass --variant d0, or --weights with a checkpoint that says what it is.",
        )


def _options(given: Mapping[str, Any]) -> ExportOptions:
    """Turn the command's parameters into checked options."""
    from effdet_deploy.exporters.options import ExportOptions, parse_batch, parse_image_size

    size = str(given["image_size"])
    return ExportOptions(
        weights=given["weights"],
        num_classes=given["num_classes"],
        labels=given["labels"],
        image_size=parse_image_size(size) if size else None,
        overrides=_overrides(given["config"]),
        batch=parse_batch(given["batch"]),
        precision=_precision(given),
        target=_choice("target", given["target"], ("tensorrt", "openvino", "onnxruntime")),
        input_kind=_choice("input", given["input_kind"], ("uint8", "float255", "normalized")),
        channel_order=_choice("channel order", given["channel_order"], ("rgb", "bgr")),
        nms=_choice("NMS", given["nms"], ("static", "onnx", "none")),
        box_format=_choice("box format", given["box_format"], ("xyxy", "yxyx")),
        build=option.build_options(given),
        command=_command(given),
        **{name: given[name] for name in _PLAIN},
    )


_PLAIN = (
    "nms_steps",
    "score_threshold",
    "iou_threshold",
    "max_detections",
    "candidates",
    "opset",
    "keep_onnx",
    "verify",
    "verify_images",
    "calibration",
    "max_map_drop",
    "eval_data",
    "precision_file",
    "seed",
)


def _precision(given: Mapping[str, Any]) -> Any:
    chosen = [name for name in ("fp32", "fp16", "int8") if given[name]]
    if len(chosen) > 1:
        raise UsageError(
            f"{' and '.join(f'--{name}' for name in chosen)} contradict each other.", "Choose one."
        )
    return chosen[0] if chosen else "fp32"


def _choice(kind: str, value: str | None, known: tuple[str, ...]) -> Any:
    if value is not None and value not in known:
        raise UnknownNameError(kind, value, known)
    return value


def _overrides(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(
            f"The config file '{path}' cannot be read: {error}.",
            'It holds a JSON object such as {"fpn_channels": 88}.',
        ) from error
    if not isinstance(document, dict):
        raise DataError(
            f"The config file '{path}' does not hold a JSON object.",
            'It should look like {"fpn_channels": 88}.',
        )
    return document


_NOT_STORED = ("output", "keep_onnx", "json_file")


_OPTION_NAMES = {"input_kind": "input", "precision_file": "precision"}


def _command(given: Mapping[str, Any]) -> str:
    """Return the command to store: base names only, OUTPUT left out."""
    words = ["effdet-export"]
    for name, value in given.items():
        if name in _NOT_STORED or value in (None, False, "") or option.is_default(name, value):
            continue
        word = _OPTION_NAMES.get(name, name).replace("_", "-")
        if value is True:
            words += [] if name == "verify" else [f"--{word}"]
        else:
            is_path = isinstance(value, Path) or (name == "weights" and "/" in str(value))
            words += [f"--{word}", Path(value).name if is_path else str(value)]
    return " ".join(words)


def _conclude(artifact: Artifact, seconds: float) -> None:
    """Say what was written, how it compared and what to run next."""
    from effdet_deploy.parity.render import render

    screen = console.stdout()
    if artifact.report is not None:
        screen.print(render(artifact.report))
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
        f"    next: effdet-deploy detect {artifact.path} PICTURE.jpg",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _document(artifact: Artifact) -> dict[str, Any]:
    return {
        "path": str(artifact.path),
        "sidecar": str(artifact.sidecar),
        "size": artifact.size,
        "notes": list(artifact.notes),
        "spec": asdict(artifact.spec),
        "verification": None if artifact.report is None else artifact.report.to_dict(),
    }
