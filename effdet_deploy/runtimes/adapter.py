"""What every engine looks like from outside, and the checks that all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from effdet_deploy.artifact.anchors import anchor_count
from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.errors import ModelFileError, TensorError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import BatchSpec, DetectorSpec

    Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the model: name, dtype and shape; None marks a dimension that is not fixed."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sides = ", ".join("N" if side is None else str(side) for side in self.shape)
        return f"{self.name} {self.dtype} [{sides}]"


@dataclass(frozen=True)
class TimedRun:
    """One run with the seconds spent copying in, computing and copying out."""

    outputs: Tensors
    copy_in: float
    compute: float
    copy_out: float


class Runtime(Protocol):
    """A loaded model.

    ``device`` is where it really runs (``"cpu"``, ``"cuda:0"``, ``"tensorrt:0"`` for TensorRT in
    ONNX Runtime), ``precision`` what it really computes in, which may be higher than what the file
    says. ``run`` may be called from several threads at once; after ``close`` it raises UsageError.
    ``close`` may be called again.
    """

    @property
    def backend(self) -> str:
        """The name of the engine in the registry."""
        ...

    @property
    def spec(self) -> DetectorSpec:
        """What the artifact says about itself."""
        ...

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The tensors it takes."""
        ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The tensors it gives, which may be more than the spec promises."""
        ...

    @property
    def device(self) -> str:
        """Where it really runs."""
        ...

    @property
    def precision(self) -> str:
        """What it really computes in."""
        ...

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run on named arrays and return every output by name; raises TensorError."""
        ...

    def close(self) -> None:
        """Release the engine."""
        ...


@runtime_checkable
class TimedRuntime(Protocol):
    """A runtime that can tell copying from computing."""

    def run_timed(self, feeds: Mapping[str, NDArray[Any]]) -> TimedRun:
        """Run as ``run`` does, and measure; every stage is complete before the next is timed."""
        ...


@runtime_checkable
class SideBySideRuntime(Protocol):
    """A runtime that can compute the images of a batch side by side."""

    def divides(self, batch: int) -> bool:
        """Say whether the images of such a batch are computed side by side."""
        ...

    def run_side_by_side(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Return what ``run`` returns; a batch is run in one piece where nothing would be won."""
        ...


def spec_tensors(spec: DetectorSpec) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Return the inputs and outputs that a model with ``spec`` has by contract."""
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


def require_spec_fits(path: Path, runtime: Runtime) -> None:
    """Check that a loaded graph is the one that its spec describes.

    The graph may have more outputs than the spec promises, never fewer.

    Raises:
        ModelFileError: the spec belongs to another file.
    """
    wanted = runtime.spec.input.shape(runtime.spec.batch.optimum)
    found = runtime.inputs[0].shape if len(runtime.inputs) == 1 else ()
    fits = len(found) == len(wanted) and found[1:] == wanted[1:]
    missing = set(runtime.spec.output.names) - {each.name for each in runtime.outputs}
    if not fits or missing:
        have = ", ".join(map(str, (*runtime.inputs, *runtime.outputs)))
        raise ModelFileError(
            f"The graph of '{path}' does not fit its spec: it has {have}, and the spec says "
            f"{list(wanted)} in and {', '.join(runtime.spec.output.names)} out.",
            "Export the model again; its spec belongs to another file.",
        )


def require_no_plugin(path: Path, spec: DetectorSpec, engine: str) -> None:
    """Check that the graph does not end in the NMS plugin of TensorRT.

    Raises:
        ModelFileError: it does, and ``engine`` does not have that.
    """
    if spec.output.nms == "plugin":
        raise ModelFileError(
            f"'{path}' ends in TensorRT's NMS plugin (--nms plugin), which {engine} does not have.",
            f"Build an engine from it: effdet-deploy build '{path.name}' model.engine; or export "
            "it with --nms static, which runs everywhere.",
        )


def run_images(runtime: Runtime, batch: NDArray[Any]) -> Tensors:
    """Run on one prepared batch of images; raises as :meth:`Runtime.run` does."""
    return runtime.run({INPUT_NAME: batch})


def closed_error(name: str) -> UsageError:
    """Return the error for a model that is used after it was closed."""
    return UsageError(f"The model '{name}' is closed.", "Load it again before running it.")


def checked_feeds(
    feeds: Mapping[str, NDArray[Any]], inputs: Sequence[TensorInfo], batch: BatchSpec
) -> Tensors:
    """Return ``feeds`` as contiguous arrays that fit the model's inputs.

    Raises:
        TensorError: a name, type, dtype, rank, shape or batch that does not fit, or a value that
            is NaN or infinite; expected against got.
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
    _check_shape(value.shape, info, batch)
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise TensorError(
            f"The input '{info.name}' holds NaN or infinite values.",
            "Check how the array was prepared.",
        )
    return np.ascontiguousarray(value)


def _check_shape(shape: tuple[int, ...], info: TensorInfo, batch: BatchSpec) -> None:
    fits = len(shape) == len(info.shape) and all(
        wanted in (None, got) for wanted, got in zip(info.shape, shape, strict=True)
    )
    in_range = bool(shape) and batch.minimum <= shape[0] <= batch.maximum
    if not fits or not in_range:
        sides = ", ".join(map(str, (batch_range(batch), *info.shape[1:])))
        raise TensorError(
            f"The input '{info.name}' must have the shape [{sides}], not {list(shape)}.",
            "Pass a batch of that size, or export the model with another --batch or --image-size.",
        )


def batch_range(batch: BatchSpec) -> str:
    """Return the accepted batch sizes as text: ``1`` or ``1..8``."""
    return str(batch.minimum) if batch.is_static else f"{batch.minimum}..{batch.maximum}"


def checked_threads(threads: int | None) -> int | None:
    """Return ``threads`` if it is None or at least one.

    Raises:
        UsageError: zero or negative.
    """
    if threads is not None and threads < 1:
        raise UsageError(
            f"The number of threads must be at least 1, not {threads}.",
            "Leave --threads out to let the engine choose.",
        )
    return threads
