"""The options of an export: how they are declared, and what they become."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effdet_deploy.cli import engine_options as engine
from effdet_deploy.errors import UsageError
from effdet_deploy.files import base_name, read_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from effdet_deploy.exporters import ExportOptions

Output = Annotated[
    Path,
    typer.Argument(metavar="OUTPUT", help="The file to write: .onnx, .torchscript or .engine."),
]
Variant = Annotated[
    str | None,
    typer.Option(help="d0…d7x, lite0…lite4, q0…q2 or any effdet name; default: the weights'."),
]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="JSON with config fields to override: effdet_deploy.pytorch.network.config.",
    ),
]
Weights = Annotated[str, typer.Option(help="pretrained, random, a checkpoint's path, or a URL.")]
NumClasses = Annotated[int | None, typer.Option(metavar="N", help="Classes.")]
Labels = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Class names, one a line, or COCO annotations."),
]
ImageSize = Annotated[
    str, typer.Option(metavar="N|HxW", help="Network input in pixels; default the variant's.")
]
Batch = Annotated[
    str, typer.Option(metavar="N|MIN..MAX|MIN,OPT,MAX", help="Batch sizes to accept.")
]
Fp32 = Annotated[bool, typer.Option("--fp32", help="FP32, the default.")]
Fp16 = Annotated[bool, typer.Option("--fp16", help="FP16 graph; needs --target.")]
Int8 = Annotated[bool, typer.Option("--int8", help="INT8 graph; needs --target.")]
Target = Annotated[
    str | None, typer.Option(help="tensorrt, openvino or onnxruntime: who will run it.")
]
Calibration = Annotated[
    Path | None,
    typer.Option(metavar="DIR|JSON", help="Your pictures, for a reduced precision's ranges."),
]
MaxMapDrop = Annotated[
    float | None,
    typer.Option(metavar="POINTS", help="With --int8: keep what costs more mAP than this."),
]
EvalData = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="COCO annotations that --max-map-drop is measured on."),
]
EvalImages = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Of --eval-data; default: images/ beside it, else its own folder.",
    ),
]
PrecisionFile = Annotated[
    Path | None,
    typer.Option("--precision", metavar="FILE", help="Which layers are INT8."),
]
InputKind = Annotated[str, typer.Option("--input", help="uint8, float255 or normalized.")]
ChannelOrder = Annotated[str, typer.Option(help="rgb or bgr.")]
Nms = Annotated[
    str, typer.Option(help="static, onnx, plugin (TensorRT's own; needs --target) or none.")
]
NmsSteps = Annotated[
    int, typer.Option(metavar="N", help="Longest suppression chain resolved, less one.")
]
BoxFormat = Annotated[str, typer.Option(help="xyxy or yxyx.")]
ScoreThreshold = Annotated[float, typer.Option(help="Floor inside the graph.")]
IouThreshold = Annotated[float, typer.Option(help="Overlap above which NMS drops.")]
MaxDetections = Annotated[int, typer.Option(metavar="N", help="Rows of the output.")]
Candidates = Annotated[int, typer.Option(metavar="N", help="Boxes that enter NMS.")]
Opset = Annotated[int, typer.Option(help="ONNX opset, 18 to 23.")]
KeepOnnx = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Keep the ONNX file of an engine here.")
]
Verify = Annotated[bool, typer.Option(help="Compare with eager PyTorch.")]
Seed = Annotated[int, typer.Option(help="Of --weights random.")]


def export_options(given: Mapping[str, Any]) -> ExportOptions:
    """Turn the command's parameters into checked options; raises UsageError."""
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
        build=engine.build_options(given),
        command=_command(given),
        **{name: given[name] for name in _PLAIN},
    )


_PLAIN = (
    "target",
    "input_kind",
    "channel_order",
    "nms",
    "box_format",
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
    "eval_images",
    "precision_file",
    "seed",
)


def _precision(given: Mapping[str, Any]) -> Any:
    from effdet_deploy.exporters.options import PRECISIONS

    chosen = [name for name in PRECISIONS if given[name]]
    if len(chosen) > 1:
        raise UsageError(
            f"{' and '.join(f'--{name}' for name in chosen)} contradict each other.", "Choose one."
        )
    return chosen[0] if chosen else "fp32"


def _overrides(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    remedy = 'It holds a JSON object such as {"fpn_channels": 88}.'
    return read_json_object(path, "The config file", remedy)


READ = (
    *("config", "labels", "calibration", "verify_images", "eval_data", "eval_images"),
    *("precision_file", "timing_cache"),
)
"""The options whose files an export reads, beside its weights."""
_NOT_STORED = ("output", "keep_onnx", "json_file")


_OPTION_NAMES = {"input_kind": "input", "precision_file": "precision"}


def _command(given: Mapping[str, Any]) -> str:
    """Return the command to store: base names only, OUTPUT left out."""
    words = ["effdet-export"]
    for name, value in given.items():
        is_left_out = value is None or value is False or value == ""
        if name in _NOT_STORED or is_left_out or engine.is_default(name, value):
            continue
        word = _OPTION_NAMES.get(name, name).replace("_", "-")
        if value is True:
            words += [] if name == "verify" else [f"--{word}"]
        else:
            words += [f"--{word}", _without_folder(name, value)]
    return shlex.join([*words, *(() if given["verify"] else ("--no-verify",))])


def _without_folder(name: str, value: object) -> str:
    """Return what may be stored of a value: of a path or an address its end."""
    if isinstance(value, Path):
        return value.name
    return base_name(str(value)) if name == "weights" else str(value)
