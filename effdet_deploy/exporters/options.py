"""ExportOptions: everything an export can be told, checked before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from effdet_deploy.artifact.spec import (
    PLUGIN_CANDIDATES,
    TENSORRT_MAX_TOPK,
    BatchSpec,
    BoxFormat,
    ChannelOrder,
    InputKind,
    NmsKind,
    Precision,
    Target,
)
from effdet_deploy.errors import UnknownNameError, UsageError
from effdet_deploy.exporters.build_options import BuildOptions

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_NMS_STEPS = 16
DEFAULT_OPSET = 20
MIN_OPSET, MAX_OPSET = 18, 23
MIN_INT8_OPSET = 19
"""The first in which quantisers take float16 scales."""
DEFAULT_CANDIDATES = 1000
PRECISIONS = get_args(Precision)
MAX_BATCH = 1024
ENGINE_SUFFIXES = (".engine", ".plan")


@dataclass(frozen=True)
class ExportOptions:
    """What to export and how; the fields are the command line's options.

    Four have another name there: ``precision`` is ``--fp16`` or ``--int8``, ``precision_file``
    ``--precision``, ``input_kind`` ``--input``, and ``overrides`` what ``--config`` holds;
    ``build`` has the options of engines. Files and folders are paths, not text.

    Raises:
        UsageError: values out of range, or options that contradict each other.
        UnknownNameError: a choice that there is not; the nearest are named.
    """

    weights: str = "pretrained"
    num_classes: int | None = None
    labels: Path | None = None
    image_size: tuple[int, int] | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    batch: BatchSpec = field(default_factory=BatchSpec)
    precision: Precision = "fp32"
    target: Target | None = None
    calibration: Path | None = None
    max_map_drop: float | None = None
    eval_data: Path | None = None
    eval_images: Path | None = None
    precision_file: Path | None = None
    input_kind: InputKind = "uint8"
    channel_order: ChannelOrder = "rgb"
    nms: NmsKind = "static"
    nms_steps: int = DEFAULT_NMS_STEPS
    box_format: BoxFormat = "xyxy"
    score_threshold: float = 0.01
    iou_threshold: float = 0.5
    max_detections: int = 100
    candidates: int = DEFAULT_CANDIDATES
    opset: int = DEFAULT_OPSET
    build: BuildOptions = field(default_factory=BuildOptions)
    keep_onnx: Path | None = None
    verify: bool = True
    verify_images: Path | None = None
    seed: int = 0
    origin: str | None = None
    command: str = ""

    def __post_init__(self) -> None:
        for kind, (value, known) in self._choices().items():
            if value not in known:
                raise UnknownNameError(kind, value, known)
        score, iou, steps = self.score_threshold, self.iou_threshold, self.nms_steps
        _require(0 <= score < 1, "--score-threshold", "from 0 to below 1", score)
        _require(0 < iou < 1, "--iou-threshold", "between 0 and 1", iou)
        _require(1 <= steps <= 1000, "--nms-steps", "from 1 to 1000", steps)
        _require(self.max_detections >= 1, "--max-detections", "1 or more", self.max_detections)
        _require(0 <= self.seed < 2**32, "--seed", "from 0 to below 2^32", self.seed)
        if self.nms == "plugin":
            self._require_what_the_plugin_has()
        else:
            most, wanted = self.candidates, f"at most --candidates, {self.candidates}"
            _require(self.max_detections <= most, "--max-detections", wanted, self.max_detections)
        has_opset = MIN_OPSET <= self.opset <= MAX_OPSET
        _require(has_opset, "--opset", f"{MIN_OPSET} to {MAX_OPSET}", self.opset)
        self._require_steps_of_static_nms()
        self._require_consistent_precision()
        require_batch(self.batch)
        require_use_of_pictures(self.verify_images, verify=self.verify)

    def _choices(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Return what was chosen by name, and from what."""
        choices: dict[str, tuple[str, tuple[str, ...]]] = {
            "precision": (self.precision, PRECISIONS),
            "input": (self.input_kind, get_args(InputKind)),
            "channel order": (self.channel_order, get_args(ChannelOrder)),
            "NMS": (self.nms, get_args(NmsKind)),
            "box format": (self.box_format, get_args(BoxFormat)),
        }
        if self.target is not None:
            choices["target"] = (self.target, get_args(Target))
        return choices

    def _require_what_the_plugin_has(self) -> None:
        if self.candidates != DEFAULT_CANDIDATES:
            raise UsageError(
                f"--nms plugin always considers the best {PLUGIN_CANDIDATES} scores, and "
                f"--candidates {self.candidates} was asked for.",
                "Leave --candidates out, or choose --nms static.",
            )
        allowed = self.max_detections <= PLUGIN_CANDIDATES
        wanted = f"at most {PLUGIN_CANDIDATES} with --nms plugin"
        _require(allowed, "--max-detections", wanted, self.max_detections)

    def _require_steps_of_static_nms(self) -> None:
        if self.nms != "static" and self.nms_steps != DEFAULT_NMS_STEPS:
            raise UsageError(
                f"--nms-steps only serves --nms static, and the export is --nms {self.nms}.",
                "Leave --nms-steps out, or choose --nms static.",
            )

    def _require_consistent_precision(self) -> None:
        if self.calibration is not None and self.precision == "fp32":
            raise UsageError(
                "--calibration only serves a reduced precision, and the export is FP32.",
                "Add --fp16 or --int8, or leave --calibration out.",
            )
        if self.precision != "int8":
            named = {
                "--max-map-drop": self.max_map_drop,
                "--eval-data": self.eval_data,
                "--eval-images": self.eval_images,
                "--precision": self.precision_file,
            }
            for option, value in named.items():
                if value is not None:
                    raise UsageError(
                        f"{option} only serves --int8, and the export is {self.precision.upper()}.",
                        f"Add --int8, or leave {option} out.",
                    )
            return
        if self.calibration is None:
            raise UsageError(
                "--int8 needs pictures to calibrate on.",
                "Pass --calibration with a folder of pictures like those the detector will see.",
            )
        wanted = f"{MIN_INT8_OPSET} or more for --int8"
        _require(self.opset >= MIN_INT8_OPSET, "--opset", wanted, self.opset)
        self._require_consistent_budget()

    def _require_consistent_budget(self) -> None:
        if (self.max_map_drop is None) != (self.eval_data is None):
            raise UsageError(
                "--max-map-drop and --eval-data only work together.",
                "Pass both, or leave both out.",
            )
        if self.eval_images is not None and self.eval_data is None:
            raise UsageError(
                "--eval-images holds the pictures of --eval-data, which was not given.",
                "Pass both, or leave --eval-images out.",
            )
        if self.max_map_drop is not None and self.precision_file is not None:
            raise UsageError(
                "--precision FILE says what is INT8, and --max-map-drop would search for it.",
                "Leave one of them out.",
            )
        allowed = self.max_map_drop is None or 0 < self.max_map_drop < 100
        wanted = "above 0 and below 100 points"
        _require(allowed, "--max-map-drop", wanted, self.max_map_drop)

    def require_fits(self, suffix: str) -> None:
        """Check the options against the kind of output.

        Raises:
            UsageError: the output cannot have these options.
        """
        is_engine = suffix in ENGINE_SUFFIXES
        if not is_engine and (self.keep_onnx is not None or self.build != BuildOptions()):
            raise UsageError(
                f"--keep-onnx and the options of engine builds do not fit the suffix '{suffix}'.",
                "Leave them out, or write an .engine file.",
            )
        target = "tensorrt" if is_engine else self.target
        if self.precision != "fp32" and suffix == ".onnx" and target is None:
            raise UsageError(
                f"--{self.precision} needs --target, because engines want different forms.",
                "Add --target tensorrt, --target openvino or --target onnxruntime.",
            )
        if self.target is not None and target != self.target:
            raise UsageError(
                f"--target {self.target} contradicts the output's suffix '{suffix}'.",
                "A .engine is always for tensorrt: leave --target out.",
            )
        if suffix == ".torchscript":
            self._require_torchscript()
        if self.nms == "plugin":
            self._require_plugin(target)
        elif target == "tensorrt" and self.nms != "none" and self.candidates > TENSORRT_MAX_TOPK:
            raise UsageError(
                f"TensorRT's TopK takes at most {TENSORRT_MAX_TOPK} candidates, "
                f"not {self.candidates}.",
                f"Pass --candidates {TENSORRT_MAX_TOPK} or fewer.",
            )

    def _require_plugin(self, target: Target | None) -> None:
        if target != "tensorrt":
            said = "no --target was given" if target is None else f"--target {target} was given"
            raise UsageError(
                f"--nms plugin is a plugin of TensorRT that no other engine has, and {said}.",
                "Add --target tensorrt, write an .engine file, or choose --nms static.",
            )
        if self.build.backend == "tensorrt-rtx":
            raise UsageError(
                "--nms plugin is in TensorRT's plugin library, which TensorRT-RTX does not have.",
                "Choose --nms static, or build with --backend tensorrt.",
            )

    def _require_torchscript(self) -> None:
        if self.target is not None:
            raise UsageError(
                f"--target {self.target} lays out ONNX files, and the output is a .torchscript.",
                "Write an .onnx file, or leave --target out.",
            )
        if self.precision != "fp32":
            raise UsageError(
                f"A .torchscript file is FP32; --{self.precision} is laid out in ONNX files.",
                "Write an .onnx file, or leave the precision out.",
            )
        if self.opset != DEFAULT_OPSET:
            raise UsageError(
                f"--opset {self.opset} is of ONNX files, and the output is a .torchscript.",
                "Write an .onnx file, or leave --opset out.",
            )
        if self.nms not in ("static", "none"):
            raise UsageError(
                f"--nms {self.nms} is a node of ONNX files and cannot be put into TorchScript.",
                "Choose --nms static or --nms none.",
            )


def _require(condition: bool, option: str, wanted: str, given: object) -> None:
    if not condition:
        raise UsageError(
            f"{option} must be {wanted}, not {given}.", "Choose a value in that range."
        )


def require_batch(batch: BatchSpec) -> None:
    """Check the sizes of a batch against each other; raises UsageError."""
    ordered = 1 <= batch.minimum <= batch.optimum <= batch.maximum <= MAX_BATCH
    wanted = f"N, MIN..MAX or MIN,OPT,MAX, in ascending order, 1 to {MAX_BATCH}"
    given = f"{batch.minimum},{batch.optimum},{batch.maximum}"
    _require(ordered, "--batch", wanted, given)


def require_use_of_pictures(images: Path | None, *, verify: bool) -> None:
    """Refuse pictures to compare on where nothing is compared; raises UsageError."""
    if images is not None and not verify:
        raise UsageError(
            "--verify-images was given together with --no-verify.", "Leave one of them out."
        )


def parse_batch(text: str) -> BatchSpec:
    """Read ``1``, ``1..8`` or ``1,4,8`` (minimum, optimum, maximum).

    Raises:
        UsageError: another form.
    """
    separator = "," if "," in text else ".."
    try:
        numbers = [int(part) for part in text.split(separator)]
    except ValueError:
        numbers = []
    match numbers:
        case [size]:
            return BatchSpec(size, size, size)
        case [low, high] if separator == "..":
            return BatchSpec(low, low, high)
        case [low, best, high]:
            return BatchSpec(low, best, high)
    raise UsageError(
        f"--batch takes N, MIN..MAX or MIN,OPT,MAX, not '{text}'.", "Try --batch 1..8."
    )


def parse_image_size(text: str) -> tuple[int, int]:
    """Read ``512`` or ``384x640`` (height x width, in pixels).

    Raises:
        UsageError: another form.
    """
    parts = text.lower().split("x")
    if not all(part.isascii() and part.isdigit() for part in parts) or len(parts) > 2:
        raise UsageError(
            f"--image-size takes whole pixels as N or HxW, not '{text}'.",
            "Try --image-size 512 or --image-size 384x640.",
        )
    sides = [int(part) for part in parts]
    return sides[0], sides[-1]
