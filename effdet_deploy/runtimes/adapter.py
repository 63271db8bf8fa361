"""The interface that all runtimes have in common, and checks that several runtimes need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.errors import ModelFileError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.artifact.tensors import TensorInfo, Tensors
    from effdet_deploy.runtimes.lanes import Lanes


@dataclass(frozen=True)
class TimedRun:
    """One run with the seconds spent copying in, computing and copying out."""

    outputs: Tensors
    copy_in: float
    compute: float
    copy_out: float


class Runtime(Protocol):
    """A loaded model.

    ``device`` is where the model really runs (``"cpu"``, ``"cuda:0"``, or ``"tensorrt:0"`` for
    TensorRT in ONNX Runtime). ``precision`` is the precision in which the model really computes; it
    may be higher than the precision that the file states. Several threads may call ``run`` at
    once; after ``close``, ``run`` raises UsageError. ``close`` may be called again.
    """

    @property
    def backend(self) -> str:
        """The name of the runtime in the registry."""

    @property
    def spec(self) -> DetectorSpec:
        """The description that the model file carries."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The tensors that the model reads."""

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The tensors that the model gives, which may be more than the spec lists."""

    @property
    def device(self) -> str:
        """The device on which the model really runs."""

    @property
    def precision(self) -> str:
        """The precision in which the model really computes."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run on named arrays and return every output by name; raises TensorError."""

    def close(self) -> None:
        """Release the runtime."""


@runtime_checkable
class TimedRuntime(Protocol):
    """A runtime that can measure copying and computing separately."""

    def run_timed(self, feeds: Mapping[str, NDArray[Any]]) -> TimedRun:
        """Run as ``run`` does, and measure; every stage is complete before the next begins."""


@runtime_checkable
class SideBySideRuntime(Protocol):
    """A runtime that can compute images side by side, every image on one thread."""

    @property
    def lanes(self) -> Lanes:
        """The threads that compute images side by side."""

    def divides(self, batch: int) -> bool:
        """Return whether the images of a batch of this size are computed side by side."""

    def run_side_by_side(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run as ``run`` does, but side by side if :meth:`divides` is true for the batch."""

    def run_on_one_thread(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run as ``run`` does, on the calling thread; several threads may do this at once.

        The batch has at most ``lanes.most`` images, and ``lanes.count`` must be above 1.
        """


def require_spec_fits(path: Path, runtime: Runtime) -> None:
    """Check that a loaded graph is the one that its spec describes.

    The graph may have more outputs than the spec lists, but not fewer.

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
            f"The graph of '{path}' does not fit its spec: the graph has {have}, but the spec "
            f"describes the input {list(wanted)} and the outputs "
            f"{', '.join(runtime.spec.output.names)}.",
            "Export the model again; its spec belongs to another file.",
        )


def require_no_plugin(path: Path, spec: DetectorSpec, runtime: str) -> None:
    """Check that the graph does not end in the NMS plugin of TensorRT, which ``runtime`` lacks.

    Raises:
        ModelFileError: the graph ends in this plugin.
    """
    if spec.output.nms == "plugin":
        raise ModelFileError(
            f"'{path}' ends in TensorRT's NMS plugin (--nms plugin), which {runtime} does not "
            "have.",
            f"Build an engine from this file: effdet-deploy build '{path.name}' model.engine; or "
            "export the model with --nms static, which runs everywhere.",
        )


def run_images(runtime: Runtime, batch: NDArray[Any]) -> Tensors:
    """Run a prepared batch of images; raises as :meth:`Runtime.run` does."""
    return runtime.run({INPUT_NAME: batch})


def closed_error(name: str) -> UsageError:
    """Return the error for a model that is used after it was closed."""
    return UsageError(f"The model '{name}' is closed.", "Load it again before running it.")
