"""The input and output tensors that follow from a spec, and checks of arrays against them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.artifact.anchors import anchor_count
from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.errors import TensorError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import BatchSpec, DetectorSpec

    Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class TensorInfo:
    """Name, dtype and shape of a model's tensor; None marks a dimension that is not fixed."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sides = ", ".join("N" if side is None else str(side) for side in self.shape)
        return f"{self.name} {self.dtype} [{sides}]"


def spec_tensors(spec: DetectorSpec) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Return the inputs and outputs that a model with this spec must have."""
    batch = spec.batch.minimum if spec.batch.is_static else None
    _, *sides = spec.input.shape(1)
    dtype = np.dtype(np.uint8 if spec.input.kind == "uint8" else np.float32)
    depth = spec.output.max_detections
    anchors = anchor_count(spec.anchors, spec.input.height, spec.input.width)
    shapes: dict[str, tuple[type, tuple[int, ...]]] = {
        "num_detections": (np.int32, (1,)),
        "detection_boxes": (np.float32, (depth, 4)),
        "detection_scores": (np.float32, (depth,)),
        "detection_classes": (np.int32, (depth,)),
        "class_logits": (np.float32, (anchors, spec.num_classes)),
        "box_regression": (np.float32, (anchors, 4)),
    }
    outputs = tuple(
        TensorInfo(name, np.dtype(shapes[name][0]), (batch, *shapes[name][1]))
        for name in spec.output.names
    )
    return (TensorInfo(INPUT_NAME, dtype, (batch, *sides)),), outputs


def checked_feeds(
    feeds: Mapping[str, NDArray[Any]], inputs: Sequence[TensorInfo], batch: BatchSpec
) -> Tensors:
    """Return ``feeds``, the arrays by input name, as contiguous arrays that fit the model's inputs.

    Raises:
        TensorError: a name, type, dtype, rank, shape or batch does not fit, or a value is NaN or
            infinite; the message says what was expected and what was given.
    """
    wanted = [each.name for each in inputs]
    if sorted(feeds) != sorted(wanted):
        raise TensorError(
            f"The model takes the inputs {wanted}, not {sorted(feeds)}.",
            "Pass a dictionary with exactly these names.",
        )
    return {each.name: _checked(feeds[each.name], each, batch) for each in inputs}


def _checked(value: object, info: TensorInfo, batch: BatchSpec) -> NDArray[Any]:
    if not isinstance(value, np.ndarray):
        raise TensorError(
            f"The input '{info.name}' must be a numpy array, not {type(value).__name__}.",
            f"Convert it with numpy.asarray(value, dtype=numpy.{info.dtype}).",
        )
    if value.dtype != info.dtype:
        raise TensorError(
            f"The input '{info.name}' must have dtype {info.dtype}, not {value.dtype}.",
            f"Convert it with .astype(numpy.{info.dtype}).",
        )
    fits = value.ndim == len(info.shape) and all(
        wanted in (None, got) for wanted, got in zip(info.shape, value.shape, strict=True)
    )
    in_range = bool(value.shape) and batch.minimum <= value.shape[0] <= batch.maximum
    if not fits or not in_range:
        sides = ", ".join(map(str, (batch_range(batch), *info.shape[1:])))
        raise TensorError(
            f"The input '{info.name}' must have the shape [{sides}], not {list(value.shape)}.",
            "Pass an array of that shape, or export the model with another --batch or "
            "--image-size.",
        )
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise TensorError(
            f"The input '{info.name}' holds NaN or infinite values.",
            "Check how the array was prepared.",
        )
    return np.ascontiguousarray(value)


def batch_range(batch: BatchSpec) -> str:
    """Return the accepted batch sizes as text: ``1`` or ``1..8``."""
    return str(batch.minimum) if batch.is_static else f"{batch.minimum}..{batch.maximum}"
