"""Options of the command line that several commands share, and those of exports and builds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer

from effdet_deploy.errors import UsageError
from effdet_deploy.exporters.build_options import BuildOptions
from effdet_deploy.exporters.option_text import whole_number
from effdet_deploy.exporters.options import ExportOptions

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="An exported model.")]
Models = Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Exported models.")]
Backend = Annotated[
    str,
    typer.Option(
        help="What runs the model: onnxruntime, openvino, tensorrt or torchscript; "
        "auto chooses by the model's suffix."
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="Where the model runs: cpu, cuda, cuda:N, tensorrt or tensorrt:N; auto takes the "
        "runtime's usual device. A device that is missing is an error."
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(metavar="N", help="How many CPU threads to use; default: the runtime decides."),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Load an engine even if there is no sidecar file to verify its hash with."
    ),
]
FastDecode = Annotated[
    bool,
    typer.Option(
        "--fast-decode",
        help="Decode large JPEGs at a half, a quarter or an eighth of their size, if that is "
        "enough for the model's input; this is faster and changes scores slightly.",
    ),
]
AllowSaturation = Annotated[
    bool,
    typer.Option(
        "--allow-saturation",
        help="Run an INT8 model even if this processor's INT8 additions can overflow, which makes "
        "results wrong.",
    ),
]
ClassMap = Annotated[
    Path | None,
    typer.Option(
        metavar="by-name|by-id|FILE",
        help="How classes of the model are matched with categories of the annotations where names "
        "and ids disagree: by name, by id, or as a JSON file of names and ids says.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Use only the first N pictures; default: all of them."),
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON to FILE.")
]

Command = TypeVar("Command", bound=Callable[..., None])
Table = Mapping[str, Any]
"""Options by the name of their parameter; the value is a type annotation that holds the help."""
_FIELDS = vars(BuildOptions()) | vars(ExportOptions())


def _option(kind: Any, metavar: str | None, text: str, *names: str) -> Any:
    return Annotated[kind, typer.Option(*names, metavar=metavar, help=text)]


_FILE, _SIZES = Path | None, "N|MIN..MAX|MIN,OPT,MAX"
_ENGINE: Table = {
    "backend": _option(
        str, None, "The builder: tensorrt, or tensorrt-rtx, which needs no GPU to build."
    ),
    "workspace": _option(
        float | None,
        "GB",
        "Most scratch memory that a layer may use, in GiB; default: TensorRT decides.",
    ),
    "opt_level": _option(
        int | None,
        "0..5",
        "How hard TensorRT searches for fast kernels: 0 builds fastest, 5 runs fastest; default: "
        "TensorRT decides.",
    ),
    "timing_cache": _option(
        _FILE, "FILE", "A file of kernel timings that makes builds faster; it is updated."
    ),
    "tf32": _option(
        bool, None, "Let FP32 convolutions compute in TF32: faster, less exact.", "--tf32"
    ),
    "hardware_compatible": _option(
        str,
        None,
        "Which other GPUs can run the engine: none, ampere+ or same-compute-capability.",
    ),
    "version_compatible": _option(
        bool,
        None,
        "Let later TensorRT releases of this major version run the engine too.",
        "--version-compatible",
    ),
    "refit": _option(
        bool, None, "Allow the engine's weights to be replaced after the build.", "--refit"
    ),
    "strip_plan": _option(
        bool,
        None,
        "Leave the weights out of the engine; it must be refitted before it runs.",
        "--strip-plan",
    ),
    "dla_core": _option(int | None, "N", "Run on DLA core N of a Jetson; default: run on the GPU."),
}
BUILD: Table = {
    "batch": _option(
        str | None,
        _SIZES,
        "Batch sizes that the engine accepts, and which one it is tuned for; default: those of "
        "the ONNX model.",
    ),
    **_ENGINE,
    "verify": _option(
        bool, None, "Compare the engine with the ONNX model after the build; this needs a GPU."
    ),
    "verify_images": _option(
        _FILE, "DIR", "Folder of pictures to verify with; default: four generated pictures."
    ),
    "json_file": JsonFile,
}
EXPORT: Table = {
    "variant": _option(
        str | None,
        None,
        "The network: d0 to d7x, lite0 to lite4, q0 to q2, a size in between such as phi:2.5, or a "
        "full effdet name; default: read from the weights.",
    ),
    "config": _option(
        _FILE,
        "FILE",
        "JSON object of network settings to change; the fields are those of "
        "effdet_deploy.pytorch.network.config.",
    ),
    "weights": _option(str, None, "pretrained, random, the path of a checkpoint, or a URL."),
    "origin": _option(
        str,
        None,
        "Project that trained the weights; needed only where the file fits several projects.",
    ),
    "num_classes": _option(
        int | None, "N", "How many classes the checkpoint has; default: read from it."
    ),
    "labels": _option(
        _FILE,
        "FILE",
        "File with the class names: text, JSON list, COCO annotations, data.yaml or .pbtxt.",
    ),
    "labels_by": _option(
        str | None,
        "rank|id",
        "How the ids in --labels number the outputs: rank (the smallest id is output 0) or id "
        "(id 1 is output 0); needed only if both fit and differ.",
    ),
    "image_size": _option(
        str | None, "N|HxW", "Size of the network's input in pixels; default: the variant's."
    ),
    "batch": _option(
        str, _SIZES, "Batch sizes that the model accepts, and which one it is tuned for."
    ),
    "fp32": _option(bool, None, "Export in FP32; this is the default.", "--fp32"),
    "fp16": _option(bool, None, "Export in FP16; an .onnx file needs --target too.", "--fp16"),
    "int8": _option(
        bool,
        None,
        "Export in INT8; needs --calibration, and an .onnx file needs --target too.",
        "--int8",
    ),
    "target": _option(
        str | None,
        None,
        "What will run the model: tensorrt, openvino, onnxruntime or deepstream.",
    ),
    "source_size": _option(
        str | None,
        "HxW",
        "Size of your frames in pixels: the model resizes them itself and returns boxes in their "
        "pixels.",
    ),
    "frame_size": _option(
        str | None,
        "HxW",
        "With --target deepstream: size of the frames from nvstreammux, in pixels.",
    ),
    "calibration": _option(
        _FILE,
        "DIR|FILE",
        "Folder of pictures like those that the detector will see, or an annotated set as for "
        "--eval-data; INT8 and FP16 measure the ranges of values on these pictures.",
    ),
    "max_map_drop": _option(
        float | None,
        "POINTS",
        "With --int8: leave layers in higher precision until the loss in mAP is below this.",
    ),
    "eval_data": _option(
        _FILE,
        "FILE|DIR",
        "What --max-map-drop measures the mAP on: COCO annotations, YOLO's data.yaml or a Pascal "
        "VOC folder.",
    ),
    "eval_images": _option(
        _FILE,
        "DIR",
        "Folder of the pictures of --eval-data; default: images/ beside the annotations, else "
        "their own folder.",
    ),
    "class_map": ClassMap,
    "precision_file": _option(
        _FILE, "FILE", "A file that says which layers are INT8.", "--precision"
    ),
    "int8_range": _option(
        str,
        None,
        "Range of INT8 values: portable is right on every x86 processor; full has one more bit "
        "and is right only on processors with VNNI.",
    ),
    "input_kind": _option(
        str,
        None,
        "What the model takes: uint8, float255 (floats from 0 to 255) or normalized (mean and "
        "std already applied).",
        "--input",
    ),
    "channel_order": _option(str, None, "Order of the channels that you pass in: rgb or bgr."),
    "resize": _option(
        str | None,
        None,
        "How training resized the pictures: letterbox, center or stretch; default: read from the "
        "weights.",
    ),
    "interpolation": _option(
        str | None,
        None,
        "How training interpolated: antialias (as Pillow) or linear (as OpenCV); default: read "
        "from the weights.",
    ),
    "trained_on": _option(
        str | None,
        None,
        "Order of the channels in training: rgb or bgr; default: read from the weights.",
    ),
    "mean": _option(
        str | None,
        "X[,X,X]",
        "Mean that training subtracted, for values from 0 to 1; 0 subtracts nothing; default: "
        "the variant's.",
    ),
    "std": _option(
        str | None,
        "X[,X,X]",
        "Standard deviation that training divided by, for values from 0 to 1; 1 changes nothing; "
        "default: the variant's.",
    ),
    "fill": _option(
        str | None,
        "N[,N,N]",
        "Color of the padding, 0 to 255 per channel; default: read from the weights, else the "
        "color of the mean if one is given, else the variant's.",
    ),
    "nms": _option(
        str,
        None,
        "How NMS is done: static (plain ONNX operators), onnx (NonMaxSuppression), plugin "
        "(TensorRT's own; needs --target) or none (raw network outputs).",
    ),
    "nms_steps": _option(
        int | None,
        "N",
        "How many links of a chain of overlapping boxes NMS settles exactly; default: 16, which is "
        "a chain of 17 boxes; raise it for dense crowds.",
    ),
    "box_format": _option(str, None, "Order of a box's coordinates: xyxy or yxyx."),
    "score_threshold": _option(
        float, None, "The model returns no detection with a lower score than this."
    ),
    "iou_threshold": _option(
        float, None, "NMS removes a box that overlaps a better one by more than this IoU."
    ),
    "class_agnostic": _option(
        bool,
        None,
        "Let a box suppress boxes of all classes, not only those of its own class.",
        "--class-agnostic",
    ),
    "soft_nms": _option(
        bool,
        None,
        "Soft-NMS: lower the scores of overlapping boxes instead of removing them; needs "
        "--nms none.",
        "--soft-nms",
    ),
    "max_detections": _option(int, "N", "How many detections the model returns for a picture."),
    "candidates": _option(
        str,
        "auto|N",
        "How many boxes enter NMS; auto takes the smallest number that gives the same detections "
        "as the 5000 boxes of effdet.",
    ),
    "opset": _option(int, None, "ONNX opset of the file, 18 to 23."),
    **_ENGINE,
    "keep_onnx": _option(
        _FILE, "FILE", "With an engine as OUTPUT: keep the ONNX file that it is built from as FILE."
    ),
    "verify": _option(bool, None, "Compare the exported model with eager PyTorch."),
    "verify_images": _option(
        _FILE,
        "DIR",
        "Folder of pictures to verify with; default: those of --calibration, else four generated "
        "pictures.",
    ),
    "seed": _option(int, None, "Seed of the random weights of --weights random."),
    "json_file": JsonFile,
}


def taking(options: Table, **defaults: Any) -> Callable[[Command], Command]:
    """Return a decorator: in place of ``**given`` a command gets one parameter per option.

    An option's default is found by its name: first in ``defaults``, then among the fields of
    :class:`ExportOptions` and :class:`BuildOptions`. Other options default to None or False.
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
    """Pick the options of an engine build from a command's parameters; raises UsageError."""
    return BuildOptions(**{each.name: given[each.name] for each in fields(BuildOptions)})


def positive_numbers(option: str, text: str) -> tuple[int, ...]:
    """Read ``1,8`` as whole numbers from 1, without repetitions; an empty text gives ``()``.

    Raises:
        UsageError: the text has another form.
    """
    numbers = [whole_number(part.strip()) or 0 for part in text.split(",")] if text else []
    if not all(numbers):
        raise UsageError(
            f"{option} takes whole numbers from 1, separated by commas, not '{text}'.",
            f"Try {option} 1,8.",
        )
    return tuple(dict.fromkeys(numbers))
