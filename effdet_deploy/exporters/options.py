"""ExportOptions: all options of an export, checked before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from effdet_deploy.artifact.labels import RULES
from effdet_deploy.artifact.spec import (
    MAX_BATCH,
    MAX_SIDE,
    PLUGIN_CANDIDATES,
    BatchSpec,
    BoxFormat,
    ChannelOrder,
    InputKind,
    Int8Range,
    Interpolation,
    NmsKind,
    Precision,
    PrecisionSpec,
    ResizeRule,
    Target,
)
from effdet_deploy.errors import Rule, UnknownNameError, limit, refuse
from effdet_deploy.exporters.build_options import BuildOptions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEFAULT_NMS_STEPS = 16
DEFAULT_OPSET = 20
MIN_OPSET, MAX_OPSET = 18, 23
MIN_INT8_OPSET = 19
"""The first opset in which quantizers accept float16 scales."""
PRECISIONS = get_args(Precision)
ENGINE_SUFFIXES = (".engine", ".plan")


@dataclass(frozen=True)
class ExportOptions:
    """What to export and how; the fields are the command line's options.

    Four fields are named differently from their options: ``precision`` is ``--fp16`` or ``--int8``,
    ``precision_file`` is ``--precision``, ``input_kind`` is ``--input``, ``overrides`` is the
    content of ``--config``. ``build`` holds the options of engines. Files and folders are paths,
    not text. ``candidates`` None means ``auto``. ``nms_steps`` None lets the export choose a form
    of NMS. The fields from ``resize`` to ``fill`` say how the network was trained, as the fields of
    ``ModelConfig`` do; None takes them from the weights.

    Raises:
        UsageError: values out of range, or options that contradict each other.
        UnknownNameError: an unknown choice; the message names the nearest ones.
    """

    weights: str = "pretrained"
    num_classes: int | None = None
    labels: Path | None = None
    labels_by: str | None = None
    image_size: tuple[int, int] | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    batch: BatchSpec = field(default_factory=BatchSpec)
    precision: Precision = "fp32"
    target: Target | Literal["deepstream"] | None = None
    frame_size: tuple[int, int] | None = None
    source_size: tuple[int, int] | None = None
    calibration: Path | None = None
    max_map_drop: float | None = None
    eval_data: Path | None = None
    eval_images: Path | None = None
    class_map: str | Path | None = None
    precision_file: Path | None = None
    int8_range: Int8Range = "portable"
    input_kind: InputKind = "uint8"
    channel_order: ChannelOrder = "rgb"
    resize: ResizeRule | None = None
    interpolation: Interpolation | None = None
    trained_on: ChannelOrder | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    fill: tuple[int, ...] | None = None
    nms: NmsKind = "static"
    nms_steps: int | None = None
    box_format: BoxFormat = "xyxy"
    score_threshold: float = 0.01
    iou_threshold: float = 0.5
    max_detections: int = 100
    class_agnostic: bool = False
    soft_nms: bool = False
    candidates: int | None = None
    opset: int = DEFAULT_OPSET
    build: BuildOptions = field(default_factory=BuildOptions)
    keep_onnx: Path | None = None
    verify: bool = True
    verify_images: Path | None = None
    seed: int = 0
    origin: str | None = None
    command: str = ""

    def __post_init__(self) -> None:
        for kind, chosen, known in (
            ("precision", self.precision, PRECISIONS),
            ("kind of input", self.input_kind, get_args(InputKind)),
            ("channel order", self.channel_order, get_args(ChannelOrder)),
            ("channel order", self.trained_on, (None, *get_args(ChannelOrder))),
            ("resize rule", self.resize, (None, *get_args(ResizeRule))),
            ("interpolation", self.interpolation, (None, *get_args(Interpolation))),
            ("NMS", self.nms, get_args(NmsKind)),
            ("box format", self.box_format, get_args(BoxFormat)),
            ("INT8 range", self.int8_range, get_args(Int8Range)),
            ("target", self.target, (None, *get_args(Target), "deepstream")),
            ("rule for ids (--labels-by)", self.labels_by, (None, *RULES)),
        ):
            if chosen not in known:
                raise UnknownNameError(kind, str(chosen), filter(None, known))
        refuse(*self._limits(), *self._contradictions())
        require_batch(self.batch)
        require_use_of_pictures(self.verify_images, verify=self.verify)

    @property
    def runtime(self) -> Target | None:
        """The runtime that the file is laid out for; for DeepStream this is TensorRT."""
        return "tensorrt" if self.target == "deepstream" else self.target

    @property
    def graph_input(self) -> InputKind:
        """The kind of input that the graph takes; DeepStream gives float pictures."""
        return "float255" if self.target == "deepstream" else self.input_kind

    @property
    def preprocessing(self) -> dict[str, Any]:
        """The config fields that were given to say how the network was trained."""
        given = {
            **{name: getattr(self, name) for name in ("resize", "interpolation", "trained_on")},
            "mean": self.mean,
            "std": self.std,
            "fill_color": self.fill,
        }
        # A single number is valid for every channel; the number of channels is in the weights.
        return {
            name: each[0] if isinstance(each, tuple) and len(each) == 1 else each
            for name, each in given.items()
            if each is not None
        }

    @property
    def precision_spec(self) -> PrecisionSpec:
        """The precision as the spec states it before any layer is converted."""
        if self.precision != "int8":
            return PrecisionSpec(self.precision, self.runtime)
        # A GPU, on which TensorRT runs, has no overflow with the full range.
        on_cpu = self.runtime in ("openvino", "onnxruntime")
        int8_range = self.int8_range if on_cpu else "full"
        needs = "vnni" if on_cpu and int8_range == "full" else None
        return PrecisionSpec("int8", self.runtime, int8_range=int8_range, instruction=needs)

    def _limits(self) -> Iterator[Rule]:
        score, iou = self.score_threshold, self.iou_threshold
        steps, rows = self.nms_steps, self.max_detections
        yield limit("--score-threshold", "from 0 to below 1", score, 0 <= score < 1)
        yield limit("--iou-threshold", "between 0 and 1", iou, 0 < iou < 1)
        yield limit("--nms-steps", "from 1 to 1000", steps, steps is None or 1 <= steps <= 1000)
        yield limit("--max-detections", "1 or more", rows, rows >= 1)
        yield limit("--seed", "from 0 to below 2^32", self.seed, 0 <= self.seed < 2**32)
        for option, low, high, values in (
            ("--mean", 0, 1, self.mean),
            ("--std", 1e-4, 1, self.std),
            ("--fill", 0, 255, self.fill),
        ):
            for value in values or ():
                wanted = f"from {low:g} to {high}" + (" (levels / 255)" if high == 1 else "")
                yield limit(option, wanted, value, low <= value <= high)
        if self.nms == "plugin":
            yield (
                (
                    f"--nms plugin always considers the best {PLUGIN_CANDIDATES} scores, but "
                    f"--candidates is {self.candidates}."
                ),
                "Leave --candidates out, or choose --nms static.",
                self.candidates is not None,
            )
            wanted = f"at most {PLUGIN_CANDIDATES} with --nms plugin"
            yield limit("--max-detections", wanted, rows, rows <= PLUGIN_CANDIDATES)
        else:
            entering = self.candidates
            wanted = f"at most --candidates, {entering}"
            yield limit("--max-detections", wanted, rows, entering is None or rows <= entering)
        wanted, opset = f"{MIN_OPSET} to {MAX_OPSET}", self.opset
        yield limit("--opset", wanted, opset, MIN_OPSET <= opset <= MAX_OPSET)

    def _contradictions(self) -> Iterator[Rule]:
        yield (
            f"--nms-steps only works with --nms static, but the export has --nms {self.nms}.",
            "Leave --nms-steps out, or choose --nms static.",
            self.nms != "static" and self.nms_steps is not None,
        )
        yield (
            (
                "--soft-nms takes as many steps as there are boxes and cannot be part of a graph, "
                f"but the export has --nms {self.nms}."
            ),
            "Add --nms none, so that Python does the soft-NMS, or leave --soft-nms out.",
            self.soft_nms and self.nms != "none",
        )
        yield (
            "--calibration only works with a reduced precision, but the export is FP32.",
            "Add --fp16 or --int8, or leave --calibration out.",
            self.calibration is not None and self.precision == "fp32",
        )
        is_int8 = self.precision == "int8"
        for option, value in (
            ("--max-map-drop", self.max_map_drop),
            ("--eval-data", self.eval_data),
            ("--eval-images", self.eval_images),
            ("--precision", self.precision_file),
            ("--int8-range", None if self.int8_range == "portable" else self.int8_range),
        ):
            yield (
                f"{option} only works with --int8, but the export is {self.precision.upper()}.",
                f"Add --int8, or leave {option} out.",
                value is not None and not is_int8,
            )
        yield (
            "--int8 needs pictures for calibration.",
            "Pass --calibration with a folder of pictures like those that the detector will see.",
            is_int8 and self.calibration is None,
        )
        yield from (*self._unfit_for_deepstream(), *self._unfit_for_frames())
        wanted, opset = f"{MIN_INT8_OPSET} or more for --int8", self.opset
        yield limit("--opset", wanted, opset, not is_int8 or opset >= MIN_INT8_OPSET)
        yield (
            "--max-map-drop and --eval-data only work together.",
            "Pass both, or leave both out.",
            (self.max_map_drop is None) != (self.eval_data is None),
        )
        data = self.eval_data
        for option, given, other, needed in (
            ("--labels-by", self.labels_by, "--labels", self.labels),
            ("--eval-images", self.eval_images, "--eval-data", data),
            ("--class-map", self.class_map, "--eval-data", data),
        ):
            rule = f"{option} needs {other} as well.", f"Pass both, or leave {option} out."
            yield (*rule, given is not None and needed is None)
        yield (
            "--precision FILE fixes the INT8 layers, but --max-map-drop would search for them.",
            "Leave one of them out.",
            self.max_map_drop is not None and self.precision_file is not None,
        )
        wanted, drop = "above 0 and below 100 points", self.max_map_drop
        yield limit("--max-map-drop", wanted, drop, drop is None or 0 < drop < 100)

    def _unfit_for_deepstream(self) -> Iterator[Rule]:
        is_for_it = self.target == "deepstream"
        yield (
            "--target deepstream and --frame-size only work together.",
            "Pass both: --target deepstream --frame-size 1080x1920, the frame size of nvstreammux.",
            is_for_it != (self.frame_size is not None),
        )
        # nvinfer scales frames with even sides and leaves out the last row or column of other
        # frames.
        sides = self.frame_size or (2, 2)
        wanted, size = f"even, from 2 to {MAX_SIDE}", "x".join(map(str, sides))
        holds = all(0 < each <= MAX_SIDE and each % 2 == 0 for each in sides)
        yield limit("--frame-size", wanted, size, holds)
        yield (
            f"DeepStream gives float pictures from 0 to 255, but --input is {self.input_kind}.",
            "Leave --input out.",
            is_for_it and self.input_kind == "normalized",
        )
        yield (
            f"The graph must clip boxes for DeepStream, but with --nms {self.nms} it cannot.",
            "Choose --nms static or --nms onnx.",
            is_for_it and self.nms in ("none", "plugin"),
        )

    def _unfit_for_frames(self) -> Iterator[Rule]:
        resizes, sides = self.source_size is not None, self.source_size or (1, 1)
        wanted, given = f"from 1x1 to {MAX_SIDE}x{MAX_SIDE}", "x".join(map(str, sides))
        yield limit("--source-size", wanted, given, all(1 <= each <= MAX_SIDE for each in sides))
        yield (
            f"--source-size takes frames as uint8, but --input is {self.input_kind}.",
            "Leave --input out; or leave --source-size out and resize in your program.",
            resizes and self.input_kind != "uint8",
        )
        yield (
            "--source-size makes the graph resize frames, but DeepStream scales them itself.",
            "For DeepStream pass --frame-size alone.",
            resizes and self.target == "deepstream",
        )
        yield (
            "--nms plugin gives boxes in network pixels, but --source-size asks for frame pixels.",
            "Choose --nms static.",
            resizes and self.nms == "plugin",
        )

    def require_fits(self, suffix: str) -> None:
        """Check the options against the kind of output.

        Raises:
            UsageError: the output cannot have these options.
        """
        is_engine = suffix in ENGINE_SUFFIXES
        target = "tensorrt" if is_engine else self.runtime
        refuse(
            (
                f"--keep-onnx and engine options need an engine, but OUTPUT ends in '{suffix}'.",
                "Leave them out, or write an .engine file.",
                not is_engine and (self.keep_onnx is not None or self.build != BuildOptions()),
            ),
            (
                f"--{self.precision} needs --target: every runtime needs its own form of the file.",
                "Add --target tensorrt, --target openvino or --target onnxruntime.",
                self.precision != "fp32" and suffix == ".onnx" and target is None,
            ),
            (
                f"--target {self.target} contradicts the output's suffix '{suffix}'.",
                "A .engine is always for tensorrt: leave --target out.",
                self.runtime is not None and target != self.runtime,
            ),
            (
                (
                    "--int8-range full is only for runtimes on a CPU; a file for TensorRT "
                    "always has the full range, which is safe on a GPU."
                ),
                "Leave --int8-range out.",
                self.int8_range == "full" and target == "tensorrt",
            ),
            *(self._unfit_for_torchscript() if suffix == ".torchscript" else ()),
            *self._unfit_nms(target),
        )

    def _unfit_for_torchscript(self) -> tuple[Rule, ...]:
        return (
            (
                f"--target {self.target} is only for ONNX files, but OUTPUT is a .torchscript.",
                "Write an .onnx file, or leave --target out.",
                self.target is not None,
            ),
            (
                f"A .torchscript file is always FP32; --{self.precision} needs an ONNX file.",
                f"Write an .onnx file, or leave --{self.precision} out.",
                self.precision != "fp32",
            ),
            (
                f"--opset {self.opset} is only for ONNX files, but OUTPUT is a .torchscript.",
                "Write an .onnx file, or leave --opset out.",
                self.opset != DEFAULT_OPSET,
            ),
            (
                f"--nms {self.nms} is an ONNX node, which TorchScript cannot hold.",
                "Choose --nms static or --nms none.",
                self.nms not in ("static", "none"),
            ),
        )

    def _unfit_nms(self, target: Target | None) -> tuple[Rule, ...]:
        is_plugin = self.nms == "plugin"
        named = f"--target {target} was given" if target else "no --target was given"
        return (
            (
                f"--nms plugin only works in TensorRT, but {named}.",
                "Add --target tensorrt, write an .engine file, or choose --nms static.",
                is_plugin and target != "tensorrt",
            ),
            (
                "--nms plugin is in TensorRT's plugin library, which TensorRT-RTX does not have.",
                "Choose --nms static, or build with --backend tensorrt.",
                is_plugin and self.build.backend == "tensorrt-rtx",
            ),
        )


def require_batch(batch: BatchSpec) -> None:
    """Check the sizes of a batch against each other; raises UsageError."""
    ordered = 1 <= batch.minimum <= batch.optimum <= batch.maximum <= MAX_BATCH
    wanted = f"N, MIN..MAX or MIN,OPT,MAX, in ascending order, 1 to {MAX_BATCH}"
    given = f"{batch.minimum},{batch.optimum},{batch.maximum}"
    refuse(limit("--batch", wanted, given, ordered))


def require_use_of_pictures(images: Path | None, *, verify: bool) -> None:
    """Refuse verification pictures without a verification; raises UsageError."""
    refuse(
        (
            "--verify-images was given together with --no-verify.",
            "Leave one of them out.",
            images is not None and not verify,
        )
    )
