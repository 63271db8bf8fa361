"""DetectorSpec: what an artifact says about itself.

One JSON document travels inside the ONNX metadata (key ``effdet.spec``), inside a TorchScript
archive and in the sidecar of every artifact. Exporters write it, runtimes read it, and nothing
else passes between them.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from effdet_deploy.errors import DataError

SPEC_VERSION = 1
METADATA_KEY = "effdet.spec"

InputKind = Literal["uint8", "float255", "normalized"]
ChannelOrder = Literal["rgb", "bgr"]
NmsKind = Literal["static", "onnx", "plugin", "none"]
BoxFormat = Literal["xyxy", "yxyx"]
Precision = Literal["fp32", "fp16", "int8"]
Target = Literal["tensorrt", "openvino", "onnxruntime"]

INPUT_NAME = "images"
DETECTION_OUTPUTS = (
    "num_detections",
    "detection_boxes",
    "detection_scores",
    "detection_classes",
)
HEAD_OUTPUTS = ("class_logits", "box_regression")
TENSORRT_MAX_TOPK = 3840
"""The largest K that TensorRT's TopK takes."""
PLUGIN_CANDIDATES = 4096
"""How many scores TensorRT's NMS plugin considers; it has no attribute for it."""


@dataclass(frozen=True)
class InputSpec:
    """The image input.

    ``uint8`` is ``[N,H,W,3]`` letterboxed 0-255; ``float255`` is float32 ``[N,3,H,W]`` 0-255;
    ``normalized`` is float32 ``[N,3,H,W]`` after mean and standard deviation. ``mean`` and
    ``std`` are on the 0-1 scale, ``fill`` is the letterbox colour; all three in RGB order.
    """

    height: int
    width: int
    kind: InputKind = "uint8"
    channel_order: ChannelOrder = "rgb"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    fill: tuple[int, int, int] = (124, 116, 104)
    letterbox: Literal["top-left"] = "top-left"

    def shape(self, batch: int) -> tuple[int, int, int, int]:
        """Return the shape of the input tensor for ``batch`` images."""
        if self.kind == "uint8":
            return (batch, self.height, self.width, 3)
        return (batch, 3, self.height, self.width)


@dataclass(frozen=True)
class AnchorSpec:
    """The anchor grid: levels, octave scales (outer) and aspect ratios (inner, (w, h))."""

    min_level: int
    max_level: int
    num_scales: int
    aspect_ratios: tuple[tuple[float, float], ...]
    scale: float


@dataclass(frozen=True)
class ClassSpec:
    """One class: its display name and its COCO ``category_id``."""

    name: str
    category_id: int


@dataclass(frozen=True)
class OutputSpec:
    """What comes out: NMS kind, its settings, and the order of box coordinates.

    ``candidates`` (K) is how many boxes enter NMS, ``max_detections`` (D ≤ K) how many rows leave
    it. ``nms_steps`` bounds the suppression chains that the static NMS resolves exactly.
    """

    nms: NmsKind = "static"
    score_threshold: float = 0.01
    iou_threshold: float = 0.5
    candidates: int = 1000
    max_detections: int = 100
    nms_steps: int = 16
    box_format: BoxFormat = "xyxy"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the graph's outputs, in order."""
        return HEAD_OUTPUTS if self.nms == "none" else DETECTION_OUTPUTS


@dataclass(frozen=True)
class PrecisionSpec:
    """The precision written into the graph, for which engine, and what stayed higher."""

    kind: Precision = "fp32"
    target: Target | None = None
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchSpec:
    """The batch sizes the artifact takes: ``minimum`` to ``maximum``, tuned for ``optimum``."""

    minimum: int = 1
    optimum: int = 1
    maximum: int = 1

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

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class EngineSpec:
    """What an engine was built with and for; ``gpu`` is empty where none was present.

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
        """Whether the weights were left out; nothing can run it before it is refitted."""
        return "strip-plan" in self.traits

    @property
    def can_run_where_built(self) -> bool:
        """Whether the machine that built it can run it: one with a GPU, and not stripped."""
        return bool(self.gpu) and not self.is_stripped


@dataclass(frozen=True)
class DetectorSpec:
    """Everything a runtime needs to know about an artifact; see the fields' own classes.

    ``overrides`` holds the config fields that differ from the variant's registered ones,
    ``operators`` counts ONNX operators by type, ``command`` is the export command with base names
    only, ``tools`` maps a tool to its version.
    """

    variant: str
    input: InputSpec
    anchors: AnchorSpec
    classes: tuple[ClassSpec, ...]
    output: OutputSpec = field(default_factory=OutputSpec)
    precision: PrecisionSpec = field(default_factory=PrecisionSpec)
    batch: BatchSpec = field(default_factory=BatchSpec)
    overrides: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""
    opset: int = 0
    operators: dict[str, int] = field(default_factory=dict)
    parameters: int = 0
    external_files: tuple[ExternalFile, ...] = ()
    tools: dict[str, str] = field(default_factory=dict)
    command: str = ""
    engine: EngineSpec | None = None
    version: int = SPEC_VERSION

    @property
    def num_classes(self) -> int:
        """How many classes the model scores."""
        return len(self.classes)

    def to_json(self) -> str:
        """Return the spec as JSON text with sorted keys: equal specs give equal text."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a spec.

        Raises:
            DataError: not JSON, of a newer spec version, or a field is missing or of another type.
        """
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(
                f"The spec is not JSON: {error}.", "Export the model again with effdet-export."
            ) from error
        return cls.from_dict(document)

    @classmethod
    def from_dict(cls, document: object) -> Self:
        """Read a spec from a decoded JSON document; raises as :meth:`from_json`."""
        version = document.get("version") if isinstance(document, dict) else None
        if isinstance(version, int) and version > SPEC_VERSION:
            raise DataError(
                f"The spec has version {version}; this effdet-deploy reads up to {SPEC_VERSION}.",
                "Upgrade it with: pip install -U effdet-deploy.",
            )
        decoded = _decode(document, cls, "spec")
        return typing.cast("Self", decoded)


@functools.cache
def _field_types(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _decode(value: object, kind: Any, where: str) -> object:
    """Turn decoded JSON ``value`` into an instance of the annotation ``kind``."""
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(value, typing.cast("type", kind), where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return _expect(value in arguments, value, where, f"one of {', '.join(arguments)}")
    if origin in (types.UnionType, typing.Union):
        chosen = next(option for option in arguments if option is not types.NoneType)
        return None if value is None else _decode(value, chosen, where)
    if origin is tuple:
        return _decode_tuple(value, arguments, where)
    if origin is dict:
        return _decode_dict(value, arguments[1], where)
    return _decode_scalar(value, kind, where)


def _decode_dataclass(value: object, kind: type, where: str) -> object:
    mapping = typing.cast("dict[str, object]", _expect(isinstance(value, dict), value, where, "{}"))
    fields = {each.name: each for each in dataclasses.fields(kind)}
    required = {
        name
        for name, each in fields.items()
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    }
    if missing := sorted(required - mapping.keys()):
        _expect(False, sorted(mapping), where, f"the fields {', '.join(missing)}")
    hints = _field_types(kind)
    known = {
        name: _decode(mapping[name], hints[name], f"{where}.{name}")
        for name in fields.keys() & mapping.keys()
    }
    return kind(**known)


def _decode_tuple(value: object, arguments: tuple[Any, ...], where: str) -> object:
    items = typing.cast("list[object]", _expect(isinstance(value, list), value, where, "a list"))
    if arguments[-1] is Ellipsis:
        return tuple(_decode(item, arguments[0], f"{where}[]") for item in items)
    _expect(len(items) == len(arguments), items, where, f"{len(arguments)} values")
    return tuple(
        _decode(item, kind, f"{where}[]") for item, kind in zip(items, arguments, strict=True)
    )


def _decode_dict(value: object, kind: Any, where: str) -> object:
    mapping = typing.cast("dict[str, object]", _expect(isinstance(value, dict), value, where, "{}"))
    return {key: _decode(item, kind, f"{where}.{key}") for key, item in mapping.items()}


def _decode_scalar(value: object, kind: Any, where: str) -> object:
    if kind is Any:
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    return _expect(fits, value, where, kind.__name__)


def _expect(condition: bool, value: object, where: str, wanted: str) -> object:
    if not condition:
        raise DataError(
            f"The field '{where}' must be {wanted}, not {value!r}.",
            "Export the model again with effdet-export.",
        )
    return value
