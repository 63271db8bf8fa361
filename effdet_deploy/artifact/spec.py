"""DetectorSpec: the document in which an artifact describes itself.

This JSON document is stored inside the ONNX metadata (key ``effdet.spec``), inside a TorchScript
archive and in the sidecar of every artifact, a JSON file beside it. Exporters write it, runtimes
read it, and nothing else passes between them.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from effdet_deploy.artifact.codec import REMEDY, Within, decode, parse
from effdet_deploy.errors import DataError

SPEC_VERSION = 2
"""Version 2 added a training's resize rule, filter, channel order, octave scales and origin."""
METADATA_KEY = "effdet.spec"

InputKind = Literal["uint8", "float255", "normalized"]
ChannelOrder = Literal["rgb", "bgr"]
ResizeRule = Literal["letterbox", "center", "stretch"]
Interpolation = Literal["antialias", "linear"]
AnchorOrder = Literal["octaves-first"]
NmsKind = Literal["static", "onnx", "plugin", "none"]
NmsForm = Literal["blocks", "matrix", "greedy"]
BoxFormat = Literal["xyxy", "yxyx"]
Decay = Literal["gaussian", "linear"]
Precision = Literal["fp32", "fp16", "int8"]
Target = Literal["tensorrt", "openvino", "onnxruntime"]
Int8Range = Literal["portable", "full"]

INPUT_NAME = "images"
DETECTION_OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes")
HEAD_OUTPUTS = ("class_logits", "box_regression")
TENSORRT_MAX_TOPK = 3840
"""The largest K that TensorRT's TopK takes."""
EFFDET_CANDIDATES = 5000
"""How many boxes enter effdet's own NMS, and the NMS of every reference."""
CANDIDATE_CHOICES = (1000, 2000, TENSORRT_MAX_TOPK, EFFDET_CANDIDATES)
"""The values that ``--candidates auto`` chooses from."""
PLUGIN_CANDIDATES = 4096
"""How many scores TensorRT's NMS plugin considers; the plugin has no attribute to change it."""
MAX_BATCH = 1024
MAX_ANCHORS = 1 << 24
"""The most anchors of the finest level, which holds three quarters of all anchors. D7x has 330,000
there."""

MAX_NAME, MAX_CLASSES = 1000, 100_000
MAX_SIDE = 16_384
"""The most pixels along one side of an input picture."""

Side = Annotated[int, Within(1, MAX_SIDE)]
Level = Annotated[int, Within(0, 16)]
Byte = Annotated[int, Within(0, 255)]
Share = Annotated[float, Within(0, 1)]
Factor = Annotated[float, Within(1e-4, 1e4)]
Rows = Annotated[int, Within(1, 1_000_000)]
BatchSize = Annotated[int, Within(1, MAX_BATCH)]
Count = Annotated[int, Within(0, 2**53)]
Name = Annotated[str, Within(0, MAX_NAME)]
OctaveCount = Annotated[int, Within(1, 64)]


@dataclass(frozen=True)
class InputSpec:
    """The image input of a model.

    ``uint8`` is ``[N,H,W,C]`` letterboxed 0-255; ``float255`` is float32 ``[N,C,H,W]`` 0-255;
    ``normalized`` is float32 ``[N,C,H,W]`` after mean and standard deviation. ``mean`` and
    ``std`` are on the 0-1 scale, ``fill`` is the letterbox color; all three have one value per
    channel in RGB order: one value for gray pictures, three for RGB, four for RGBA.

    ``channel_order`` is the order that the caller passes, ``trained_on`` the one that the network
    was trained on. ``resize`` says how a picture is brought to the input's height and width:
    ``letterbox`` keeps its shape and puts it into the top left corner, ``center`` into the middle;
    ``stretch`` fills both axes. ``interpolation`` is Pillow's bilinear filter (``antialias``) or
    OpenCV's (``linear``). ``source_size`` is (height, width) of the frames that go in, where the
    graph resizes them. ``frame_size`` is (height, width) of frames that the caller scales as
    DeepStream does, over black: the graph fills the free part with ``fill``, and clips boxes to
    the frame.
    """

    height: Side
    width: Side
    kind: InputKind = "uint8"
    channel_order: ChannelOrder = "rgb"
    mean: Annotated[tuple[float, ...], Within(1, 4)] = (0.485, 0.456, 0.406)
    std: Annotated[tuple[Factor, ...], Within(1, 4)] = (0.229, 0.224, 0.225)
    fill: Annotated[tuple[Byte, ...], Within(1, 4)] = (124, 116, 104)
    trained_on: ChannelOrder = "rgb"
    resize: ResizeRule = "letterbox"
    interpolation: Interpolation = "antialias"
    source_size: tuple[Side, Side] | None = None
    frame_size: tuple[Side, Side] | None = None

    def shape(self, batch: int) -> tuple[int, int, int, int]:
        """Return the shape of the input tensor for ``batch`` images."""
        if self.kind == "uint8":
            return (batch, *self.taken_size, self.channels)
        return (batch, self.channels, self.height, self.width)

    @property
    def taken_size(self) -> tuple[int, int]:
        """(height, width) of the pictures that go in: the frames' or the network input's."""
        return self.source_size or (self.height, self.width)

    @property
    def channels(self) -> int:
        """The number of channels of a picture: 1 gray, 3 RGB, 4 RGBA."""
        return len(self.mean)

    @property
    def passed_channels(self) -> list[int]:
        """The place in RGB order of every channel that the caller passes."""
        return channel_places(self.channel_order, self.channels)

    @property
    def trained_channels(self) -> list[int]:
        """The place in RGB order of every channel that the network takes."""
        return channel_places(self.trained_on, self.channels)

    @property
    def frame_area(self) -> tuple[int, int, int, int] | None:
        """The place of a frame in the input: top, left, bottom, right; None without ``frame_size``.

        DeepStream's nvinfer truncates the quotient of whole numbers; a product with a rounded scale
        can be smaller by one.
        """
        if self.frame_size is None:
            return None
        height, width = self.height, self.width
        rows, columns = self.frame_size
        if self.resize != "stretch":
            height = min(height, max(1, width * rows // columns))
            width = min(width, max(1, self.height * columns // rows))
        center = self.resize == "center"
        top, left = (self.height - height) // 2 * center, (self.width - width) // 2 * center
        return top, left, top + height, left + width


def channel_places(order: ChannelOrder, channels: int) -> list[int]:
    """Return the place in RGB order of every channel of ``order``; the same list maps back."""
    places = [2, 1, 0, 3] if order == "bgr" and channels >= 3 else [0, 1, 2, 3]
    return places[:channels]


@dataclass(frozen=True)
class AnchorSpec:
    """The anchor grid: its levels, and the octave scales and aspect ratios (w, h) at a position.

    ``order`` says whether octave scales or aspect ratios are the outer loop; in effdet the octave
    scales are.
    """

    min_level: Level
    max_level: Level
    octave_scales: Annotated[tuple[Factor, ...], Within(1, 64)]
    aspect_ratios: Annotated[tuple[tuple[Factor, Factor], ...], Within(1, 64)]
    scale: Factor
    order: AnchorOrder = "octaves-first"


def even_octaves(count: int) -> tuple[float, ...]:
    """Return ``count`` octave scales that divide an octave evenly, as effdet's do."""
    return tuple(2 ** (index / count) for index in range(count))


@dataclass(frozen=True)
class ClassSpec:
    """One class: its display name and its COCO ``category_id``."""

    name: Name
    category_id: int


@dataclass(frozen=True)
class SoftNmsSpec:
    """Soft-NMS (arXiv:1704.04503), with the settings of effdet's benches, its wrappers with NMS.

    A box multiplies the scores of the boxes that it overlaps. The decay ``gaussian`` multiplies by
    ``exp(-IoU²/sigma)``; ``linear`` multiplies by 1 - IoU, but only if the IoU is above
    ``iou_threshold``. Boxes whose score falls to ``score_threshold`` or below are dropped.
    """

    decay: Decay = "gaussian"
    sigma: Factor = 0.5
    iou_threshold: Share = 0.3
    score_threshold: Share = 0.001


@dataclass(frozen=True)
class OutputSpec:
    """The outputs of a model: NMS kind, its settings, and the order of box coordinates.

    ``candidates`` (K) boxes enter NMS, and ``max_detections`` (D ≤ K) rows leave it. ``nms_form``
    is how the static NMS is written: in steps, in ``blocks`` or as one ``matrix``, which is exact
    for suppression chains of up to ``nms_steps``; or ``greedy``, row by row, which is exact for all
    chains. ``class_agnostic`` means one NMS for all classes. ``soft_nms`` holds the settings of the
    soft-NMS that numpy runs on raw heads; None means ordinary NMS.
    """

    nms: NmsKind = "static"
    score_threshold: Share = 0.01
    iou_threshold: Share = 0.5
    candidates: Rows = 1000
    max_detections: Rows = 100
    nms_steps: Annotated[int, Within(1, 1000)] = 16
    box_format: BoxFormat = "xyxy"
    nms_form: NmsForm = "blocks"
    class_agnostic: bool = False
    soft_nms: SoftNmsSpec | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the graph's outputs, in order."""
        return HEAD_OUTPUTS if self.nms == "none" else DETECTION_OUTPUTS


def enough_candidates(needed: int) -> int:
    """Return the smallest of :data:`CANDIDATE_CHOICES` not below ``needed``, else ``needed``."""
    return next((each for each in CANDIDATE_CHOICES if each >= needed), needed)


@dataclass(frozen=True)
class PrecisionSpec:
    """The precision in the graph, the intended runtime, and the layers in higher precision.

    ``int8_range`` is the range of INT8 weights. ``portable`` weights cannot overflow the 16 bits in
    which an x86 processor without VNNI adds two products; ``full`` weights can. None means that the
    file is not INT8, or is too old to state the range: then its weights have to be examined.
    ``instruction`` is the processor instruction that correct results need; None if results are
    correct on every processor.
    """

    kind: Precision = "fp32"
    target: Target | None = None
    kept: tuple[Name, ...] = ()
    int8_range: Int8Range | None = None
    instruction: Name | None = None


@dataclass(frozen=True)
class BatchSpec:
    """The accepted batch sizes: ``minimum`` to ``maximum``, tuned for ``optimum``."""

    minimum: BatchSize = 1
    optimum: BatchSize = 1
    maximum: BatchSize = 1

    @property
    def is_static(self) -> bool:
        """Whether exactly one batch size is accepted."""
        return self.minimum == self.maximum

    def __str__(self) -> str:
        if self.is_static:
            return str(self.minimum)
        return f"{self.minimum}..{self.maximum} (tuned for {self.optimum})"


@dataclass(frozen=True)
class ExternalFile:
    """A data file that belongs to the model file: name, bytes and SHA-256."""

    name: Name
    size: Count
    sha256: Name


@dataclass(frozen=True)
class EngineSpec:
    """How and for what an engine was built; ``gpu`` is empty if the machine had no GPU.

    ``traits`` are the build options that decide where and how it runs, such as ``tf32``,
    ``version-compatible`` or ``hardware-compatible=ampere+``.
    """

    backend: str
    version: str
    gpu: str = ""
    compute_capability: str = ""
    traits: tuple[str, ...] = ()

    @property
    def is_stripped(self) -> bool:
        """Whether the weights were left out; such an engine must be refitted before it runs."""
        return "strip-plan" in self.traits

    @property
    def can_run_where_built(self) -> bool:
        """Whether the machine that built the engine can run it: it has a GPU and the weights."""
        return bool(self.gpu) and not self.is_stripped


@dataclass(frozen=True)
class DetectorSpec:
    """Everything a runtime needs to know about an artifact.

    Attributes:
        variant: effdet's name of the configuration, or ``phi:…``.
        input: What the graph takes and how pictures are prepared for it.
        anchors: How the anchors are made.
        classes: The name and the COCO category of each class index.
        output: The tensors that come out, and the settings of NMS.
        precision: FP32, FP16 or INT8, and for which runtime it is laid out.
        batch: The smallest, the usual and the largest batch.
        overrides: The config fields that differ from the variant's registered ones.
        origin: The project that trained the weights, recognized by the names of its variables.
        assumed: One sentence per assumption about something that the weights do not say.
        weights_sha256: The SHA-256 of the weights.
        opset: The ONNX opset; 0 where the artifact is not an ONNX file or an engine made from one.
        operators: How often each ONNX operator occurs, by its type.
        parameters: How many parameters the network has.
        external_files: The files beside an ONNX file that hold its weights.
        tools: The version of each tool that made the artifact.
        command: The export command, with base names in place of paths.
        engine: How and for what a TensorRT engine was built; None for other artifacts.
        version: The version of this document.
    """

    variant: Name
    input: InputSpec
    anchors: AnchorSpec
    classes: Annotated[tuple[ClassSpec, ...], Within(1, MAX_CLASSES)]
    output: OutputSpec = field(default_factory=OutputSpec)
    precision: PrecisionSpec = field(default_factory=PrecisionSpec)
    batch: BatchSpec = field(default_factory=BatchSpec)
    overrides: dict[str, Any] = field(default_factory=dict)
    origin: Name = "effdet"
    assumed: tuple[Name, ...] = ()
    weights_sha256: Name = ""
    opset: Count = 0
    operators: dict[str, Count] = field(default_factory=dict)
    parameters: Count = 0
    external_files: tuple[ExternalFile, ...] = ()
    tools: dict[str, str] = field(default_factory=dict)
    command: str = ""
    engine: EngineSpec | None = None
    version: int = SPEC_VERSION

    @property
    def of_heads(self) -> DetectorSpec:
        """The spec of the same model with a graph that ends in its raw heads."""
        return dataclasses.replace(self, output=dataclasses.replace(self.output, nms="none"))

    @property
    def num_classes(self) -> int:
        """How many classes the model scores."""
        return len(self.classes)

    def to_json(self) -> str:
        """Return the spec as JSON text with sorted keys: equal specs give equal text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a spec of this version or an older one.

        Raises:
            DataError: the text is not JSON, has a newer spec version, or a field is missing, has
                another type or is out of bounds.
        """
        return cls.from_dict(parse(text, "The spec"))

    @classmethod
    def from_dict(cls, document: object) -> Self:
        """Read a spec from a decoded JSON document; raises as :meth:`from_json`."""
        version = document.get("version") if isinstance(document, dict) else None
        if isinstance(version, int) and version > SPEC_VERSION:
            raise DataError(
                f"The spec has version {version}; this effdet-deploy reads up to {SPEC_VERSION}.",
                "Upgrade it with: pip install -U effdet-deploy.",
            )
        if isinstance(document, dict) and version == 1:
            document = _from_version_1(document)
        spec: Self = decode(document, cls, "spec")
        spec._require_consistent()
        return spec

    def _require_consistent(self) -> None:
        """Check rules that concern more than one field; raises DataError."""
        anchors, batch, output = self.anchors, self.batch, self.output
        finest = 2**anchors.min_level
        rows, columns = -(-self.input.height // finest), -(-self.input.width // finest)
        by_channel = {len(each) for each in (self.input.mean, self.input.std, self.input.fill)}
        resizes = self.input.source_size is not None
        per_position = len(anchors.octave_scales) * len(anchors.aspect_ratios)
        for said, holds in (
            (
                "anchors.min_level must not be above anchors.max_level",
                anchors.min_level <= anchors.max_level,
            ),
            (
                f"it must have at most {MAX_ANCHORS:,} anchors",
                rows * columns * per_position <= MAX_ANCHORS,
            ),
            ("input.mean, std and fill must have 1, 3 or 4 values", by_channel in ({1}, {3}, {4})),
            (
                "input.kind must be uint8 if input.source_size is set",
                not resizes or self.input.kind == "uint8",
            ),
            (
                "batch.minimum, optimum and maximum must ascend",
                batch.minimum <= batch.optimum <= batch.maximum,
            ),
            ("output.soft_nms needs output.nms none", output.nms == "none" or not output.soft_nms),
            (
                "output.max_detections must not be above output.candidates",
                output.max_detections <= output.candidates,
            ),
        ):
            if not holds:
                raise DataError(f"The spec contradicts itself: {said}.", REMEDY)


def _from_version_1(document: dict[str, Any]) -> dict[str, Any]:
    """Translate a version 1 document; damaged fields stay as they are and are reported later."""
    found = dict(document, version=SPEC_VERSION)
    anchors, output, precision = (found.get(each) for each in ("anchors", "output", "precision"))
    if isinstance(anchors, dict) and "num_scales" in anchors:
        number = decode(anchors["num_scales"], OctaveCount, "spec.anchors.num_scales")
        found["anchors"] = dict(anchors, octave_scales=list(even_octaves(number)))
    if isinstance(precision, dict) and precision.get("target") == "tensorrt":
        found["output"] = dict(output, nms_form="matrix") if isinstance(output, dict) else output
    return found
