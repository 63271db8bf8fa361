"""The options that several commands have, and those of exports and builds, each declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer

from effdet_deploy.errors import UsageError
from effdet_deploy.exporters.build_options import BuildOptions
from effdet_deploy.exporters.options import ExportOptions

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="An exported model.")]
Models = Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Exported models.")]
Backend = Annotated[str, typer.Option(help="The engine; auto goes by the model's suffix.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:N, tensorrt or tensorrt:N; used or refused.")
]
Threads = Annotated[int | None, typer.Option(metavar="N", help="CPU threads.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Load an engine that has no sidecar to check it by.")
]
AllowSaturation = Annotated[
    bool,
    typer.Option(
        "--allow-saturation", help="Run an INT8 file that this processor adds up wrongly."
    ),
]
ClassMap = Annotated[
    Path | None,
    typer.Option(
        metavar="by-name|by-id|FILE",
        help="What decides where class names and ids contradict the annotations'.",
    ),
]
Limit = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Use only the first N pictures.")
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="The result as JSON.")
]

Command = TypeVar("Command", bound=Callable[..., None])
Table = Mapping[str, Any]
"""Options by the name of their parameter: a type with what the help says of it."""
_FIELDS = vars(BuildOptions()) | vars(ExportOptions())


def _option(kind: Any, metavar: str | None, text: str, *names: str) -> Any:
    return Annotated[kind, typer.Option(*names, metavar=metavar, help=text)]


_FILE, _SIZES = Path | None, "N|MIN..MAX|MIN,OPT,MAX"
_ENGINE: Table = {
    "backend": _option(str, None, "tensorrt, or tensorrt-rtx, which builds without a GPU."),
    "workspace": _option(float | None, "GB", "Scratch memory of a layer, in GiB."),
    "opt_level": _option(int | None, "0..5", "0 builds quickly, 5 runs quickly."),
    "timing_cache": _option(_FILE, "FILE", "Kernel timings to reuse and to update."),
    "tf32": _option(bool, None, "Let FP32 convolutions compute in TF32.", "--tf32"),
    "hardware_compatible": _option(
        str, None, "none, ampere+ or same-compute-capability: which GPUs run it."
    ),
    "version_compatible": _option(
        bool, None, "Run under later TensorRT releases too.", "--version-compatible"
    ),
    "refit": _option(bool, None, "Let weights be replaced later.", "--refit"),
    "strip_plan": _option(bool, None, "Leave the weights out.", "--strip-plan"),
    "dla_core": _option(int | None, "N", "Run on this DLA core of a Jetson."),
}
_VERIFY_IMAGES = _option(_FILE, "DIR", "Pictures to compare on.")
BUILD: Table = {
    "batch": _option(str | None, _SIZES, "Batch sizes; default the model's."),
    **_ENGINE,
    "verify": _option(bool, None, "Run the engine against the ONNX file, where there is a GPU."),
    "verify_images": _VERIFY_IMAGES,
    "json_file": JsonFile,
}
EXPORT: Table = {
    "variant": _option(
        str | None,
        None,
        "d0…d7x, lite0…lite4, q0…q2, phi:2.5 or any effdet name; default: the weights'.",
    ),
    "config": _option(
        _FILE, "FILE", "JSON with config fields to override: effdet_deploy.pytorch.network.config."
    ),
    "weights": _option(str, None, "pretrained, random, a checkpoint's path, or a URL."),
    "origin": _option(
        str, None, "The project that trained the weights, where their names do not tell it."
    ),
    "num_classes": _option(int | None, "N", "Classes."),
    "labels": _option(_FILE, "FILE", "Class names: text, COCO annotations, data.yaml or .pbtxt."),
    "labels_by": _option(
        str | None, "rank|id", "Which output an id of --labels is of, where both would fit."
    ),
    "image_size": _option(str | None, "N|HxW", "Network input in pixels; default the variant's."),
    "batch": _option(str, _SIZES, "Batch sizes to accept."),
    "fp32": _option(bool, None, "FP32, the default.", "--fp32"),
    "fp16": _option(bool, None, "FP16 graph; needs --target.", "--fp16"),
    "int8": _option(bool, None, "INT8 graph; needs --target.", "--int8"),
    "target": _option(str | None, None, "tensorrt, openvino, onnxruntime or deepstream."),
    "source_size": _option(
        str | None, "HxW", "Frames of this size go in, boxes in their pixels come out."
    ),
    "frame_size": _option(
        str | None, "HxW", "With --target deepstream: the frames that nvstreammux gives."
    ),
    "calibration": _option(_FILE, "DIR|JSON", "Your pictures, for a reduced precision's ranges."),
    "max_map_drop": _option(
        float | None, "POINTS", "With --int8: keep what costs more mAP than this."
    ),
    "eval_data": _option(_FILE, "FILE", "COCO annotations that --max-map-drop is measured on."),
    "eval_images": _option(
        _FILE, "DIR", "Of --eval-data; default: images/ beside it, else its own folder."
    ),
    "class_map": ClassMap,
    "precision_file": _option(_FILE, "FILE", "Which layers are INT8.", "--precision"),
    "int8_range": _option(
        str, None, "portable: INT8 right on every x86; full: one more bit, right only with VNNI."
    ),
    "input_kind": _option(str, None, "uint8, float255 or normalized.", "--input"),
    "channel_order": _option(str, None, "rgb or bgr: what is passed in."),
    "resize": _option(
        str | None, None, "letterbox, center or stretch: how the training brought pictures to size."
    ),
    "interpolation": _option(
        str | None, None, "antialias (Pillow's) or linear (OpenCV's), as in the training."
    ),
    "trained_on": _option(str | None, None, "rgb or bgr: what the network was trained on."),
    "mean": _option(str | None, "X[,X,X]", "Subtracted after levels / 255; 0 for none."),
    "std": _option(str | None, "X[,X,X]", "Divided by after that; 1 for none."),
    "fill": _option(str | None, "N[,N,N]", "Padding, 0 to 255; default: the mean."),
    "nms": _option(str, None, "static, onnx, plugin (TensorRT's own; needs --target) or none."),
    "nms_steps": _option(
        int | None, "N", "Settle NMS in N steps: exact for chains of N + 1 boxes."
    ),
    "box_format": _option(str, None, "xyxy or yxyx."),
    "score_threshold": _option(float, None, "Floor inside the graph."),
    "iou_threshold": _option(float, None, "Overlap above which NMS drops."),
    "class_agnostic": _option(
        bool, None, "One NMS for all classes, not one for each.", "--class-agnostic"
    ),
    "soft_nms": _option(
        bool, None, "Lower scores as effdet's benches can; needs --nms none.", "--soft-nms"
    ),
    "max_detections": _option(int, "N", "Rows of the output."),
    "candidates": _option(
        str, "auto|N", "Boxes that enter NMS; auto: as few as give the rows of effdet's 5000."
    ),
    "opset": _option(int, None, "ONNX opset, 18 to 23."),
    **_ENGINE,
    "keep_onnx": _option(_FILE, "FILE", "Keep the ONNX file of an engine here."),
    "verify": _option(bool, None, "Compare with eager PyTorch."),
    "verify_images": _VERIFY_IMAGES,
    "seed": _option(int, None, "Of --weights random."),
    "json_file": JsonFile,
}


def taking(options: Table, **defaults: Any) -> Callable[[Command], Command]:
    """Give a command that takes ``**given`` the parameters of a table, as Typer reads them.

    A default is that of the field of this name of :class:`ExportOptions` or :class:`BuildOptions`,
    or of ``defaults``; of other options there is none.
    """

    def give(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        *parameters, _given = signature.parameters.values()
        for name, kind in options.items():
            nothing = False if get_args(kind)[0] is bool else None
            default = (_FIELDS | defaults).get(name, nothing)
            each = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
            parameters.append(each.replace(annotation=kind))
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return command

    return give


def build_options(given: Mapping[str, Any]) -> BuildOptions:
    """Return the options of an engine build among those of a command; raises UsageError."""
    return BuildOptions(**{each.name: given[each.name] for each in fields(BuildOptions)})


def positive_numbers(option: str, text: str) -> tuple[int, ...]:
    """Read ``1,8``: whole numbers from 1, each once; none where ``text`` is empty.

    Raises:
        UsageError: another form.
    """
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(
            f"{option} takes whole numbers from 1, separated by commas, not '{text}'.",
            f"Try {option} 1,8.",
        )
    return tuple(dict.fromkeys(map(int, parts)))
