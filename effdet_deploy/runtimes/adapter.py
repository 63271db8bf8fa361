"""The interface that all runtimes have in common, and the checks that they share."""

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

    ``device`` is where it really runs (``"cpu"``, ``"cuda:0"``, or ``"tensorrt:0"`` for TensorRT in
    ONNX Runtime). ``precision`` is the one that it really computes in, which may be higher than the
    file's. Several threads may call ``run`` at once; after ``close`` it raises UsageError.
    ``close`` may be called again.
    """

    @property
    def backend(self) -> str:
        """The name of the runtime in the registry."""

    @property
    def spec(self) -> DetectorSpec:
        """The artifact's description of itself."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """The tensors that the model reads."""

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """The tensors that the model gives, which may be more than the spec lists."""

    @property
    def device(self) -> str:
        """The device on which it really runs."""

    @property
    def precision(self) -> str:
        """The precision in which it really computes."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run on named arrays and return every output by name; raises TensorError."""

    def close(self) -> None:
        """Release the runtime."""


@runtime_checkable
class TimedRuntime(Protocol):
    """A runtime that can measure copying and computing separately."""

    def run_timed(self, feeds: Mapping[str, NDArray[Any]]) -> TimedRun:
        """Run as ``run`` does and measure; a stage is complete before the next one is timed."""


@runtime_checkable
class SideBySideRuntime(Protocol):
    """A runtime that can compute images side by side, every image on one thread."""

    @property
    def lanes(self) -> Lanes:
        """How many images are computed side by side, and how many of them together."""

    def divides(self, batch: int) -> bool:
        """Return whether the images of such a batch are computed side by side."""

    def run_side_by_side(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run as ``run`` does; a batch is run in one piece if that is as fast."""

    def run_on_one_thread(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run as ``run`` does, on the calling thread, beside other calls.

        This takes at most ``lanes.most`` images, and only works if ``lanes.count`` is above 1.
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
            f"The graph of '{path}' does not fit its spec: it has {have}, but the spec describes "
            f"the input {list(wanted)} and the outputs {', '.join(runtime.spec.output.names)}.",
            "Export the model again; its spec belongs to another file.",
        )


def require_no_plugin(path: Path, spec: DetectorSpec, engine: str) -> None:
    """Check that the graph does not end in the NMS plugin of TensorRT.

    Raises:
        ModelFileError: it does, and ``engine`` lacks this plugin.
    """
    if spec.output.nms == "plugin":
        raise ModelFileError(
            f"'{path}' ends in TensorRT's NMS plugin (--nms plugin), which {engine} does not have.",
            f"Build an engine from it: effdet-deploy build '{path.name}' model.engine; or export "
            "it with --nms static, which runs everywhere.",
        )


def run_images(runtime: Runtime, batch: NDArray[Any]) -> Tensors:
    """Run a prepared batch of images; raises as :meth:`Runtime.run` does."""
    return runtime.run({INPUT_NAME: batch})


def closed_error(name: str) -> UsageError:
    """Return the error for a model that is used after it was closed."""
    return UsageError(f"The model '{name}' is closed.", "Load it again before running it.")
