"""The options of the commands, each declared once; their defaults are the library's."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effdet_deploy.errors import UsageError
from effdet_deploy.exporters.build_options import BuildOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

# Of several commands.
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
Limit = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Use only the first N pictures.")
]
VerifyImages = Annotated[Path | None, typer.Option(metavar="DIR", help="Pictures to compare on.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="The result as JSON.")
]

# Of engine builds.
Builder = Annotated[
    str,
    typer.Option("--backend", help="tensorrt, or tensorrt-rtx, which builds without a GPU."),
]
Workspace = Annotated[
    float | None, typer.Option(metavar="GB", help="Scratch memory of a layer, in GiB.")
]
OptLevel = Annotated[
    int | None, typer.Option(metavar="0..5", help="0 builds quickly, 5 runs quickly.")
]
TimingCache = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Kernel timings to reuse and to update.")
]
Tf32 = Annotated[bool, typer.Option("--tf32", help="Let FP32 convolutions compute in TF32.")]
HardwareCompatible = Annotated[
    str, typer.Option(help="none, ampere+ or same-compute-capability: which GPUs run it.")
]
VersionCompatible = Annotated[
    bool, typer.Option("--version-compatible", help="Run under later TensorRT releases too.")
]
Refit = Annotated[bool, typer.Option("--refit", help="Let weights be replaced later.")]
StripPlan = Annotated[bool, typer.Option("--strip-plan", help="Leave the weights out.")]
DlaCore = Annotated[int | None, typer.Option(metavar="N", help="Run on this DLA core of a Jetson.")]

# Of exports.
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


def build_options(given: Mapping[str, Any]) -> BuildOptions:
    """Return the options of an engine build among a command's parameters; raises UsageError."""
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
