"""Running TorchScript archives with torch; no other runtime needs torch."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from effdet_deploy.artifact.modelfile import read_spec
from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.artifact.tensors import checked_feeds, spec_tensors
from effdet_deploy.errors import DeviceError, ModelFileError, UnknownDeviceError
from effdet_deploy.runtimes.adapter import TimedRun, closed_error
from effdet_deploy.runtimes.runtime_errors import failed_run, last_line, translated

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.artifact.tensors import Tensors


def load(path: Path, *, device: str, threads: int | None, trust: bool) -> TorchScriptRuntime:  # noqa: ARG001
    """Load a TorchScript archive; see :func:`effdet_deploy.runtimes.load_runtime`.

    ``threads`` sets torch's own number of threads for the whole process.
    """
    spec = read_spec(path, "torchscript")
    place = _device(device)
    if threads is not None:
        torch.set_num_threads(threads)

    def explain(text: str) -> ModelFileError:
        return ModelFileError(
            f"'{path}' cannot be loaded by torch {torch.__version__}: {last_line(text)}.",
            "Get the file again or export it again with this version of torch.",
        )

    with translated(path, "loaded", (RuntimeError, ValueError, OSError), explain):
        module = torch.jit.load(str(path), map_location=place)  # type: ignore[no-untyped-call]
    return TorchScriptRuntime(path, spec, module.eval(), place)


def _device(name: str) -> torch.device:
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind != "cuda" or not index.isdigit())):
        raise UnknownDeviceError(name, ("auto", "cpu", "cuda", "cuda:1"))
    count = torch.cuda.device_count()
    if kind == "cpu" or (kind == "auto" and count == 0):
        return torch.device("cpu")
    if int(index or 0) >= count:
        raise DeviceError(
            f"The device '{name}' was asked for, but torch sees {count} CUDA devices.",
            "Use --device cpu, or install a torch with CUDA on a machine with a GPU.",
        )
    return torch.device("cuda", int(index or 0))


class TorchScriptRuntime:
    """A loaded archive; see :class:`effdet_deploy.runtimes.adapter.Runtime`."""

    backend = "torchscript"

    def __init__(
        self, path: Path, spec: DetectorSpec, module: torch.nn.Module, device: torch.device
    ) -> None:
        self.spec = spec
        self.device = str(device)
        self.inputs, self.outputs = spec_tensors(spec)
        self._path = path
        self._module: torch.nn.Module | None = module
        self._place = device

    @property
    def precision(self) -> str:
        """The precision of the computation: the one that the archive's spec states."""
        return self.spec.precision.kind

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Tensors:
        """Run the module; raises TensorError on unfit feeds and ResourceError without memory."""
        return self.run_timed(feeds).outputs

    def run_timed(self, feeds: Mapping[str, NDArray[Any]]) -> TimedRun:
        """Run as :meth:`run`, timing the copies; on the CPU they cost next to nothing."""
        module, path = self._module, self._path
        if module is None:
            raise closed_error(path.name)
        checked = checked_feeds(feeds, self.inputs, self.spec.batch)
        with (
            translated(
                path,
                "run",
                (RuntimeError,),
                lambda text: failed_run("torch", path, last_line(text)),
            ),
            self._exact_float32(),
            torch.inference_mode(),
        ):
            start = time.perf_counter()
            # Torch warns about read-only arrays, although it only reads them.
            pixels = np.require(checked[INPUT_NAME], requirements="W")
            image = torch.from_numpy(pixels).to(self._place)
            self._synchronize()
            copied = time.perf_counter()
            found = module(image)
            values = found if isinstance(found, list | tuple) else (found,)
            self._synchronize()
            computed = time.perf_counter()
            arrays = [value.cpu().numpy() for value in values]
            end = time.perf_counter()
        names = [each.name for each in self.outputs]
        if len(names) != len(arrays):
            raise ModelFileError(
                f"'{path.name}' gives {len(arrays)} outputs, but its spec names {len(names)}.",
                "Export the model again; its spec belongs to another file.",
            )
        outputs = dict(zip(names, arrays, strict=True))
        return TimedRun(outputs, copied - start, computed - copied, end - computed)

    def close(self) -> None:
        """Release the module; runs that are under way finish."""
        self._module = None

    def _synchronize(self) -> None:
        if self._place.type == "cuda":
            torch.cuda.synchronize(self._place)

    def _exact_float32(self) -> contextlib.AbstractContextManager[None]:
        """Compute FP32 in FP32: on a GPU, cuDNN's default is TF32, with 10 bits of mantissa."""
        if self._place.type != "cuda":
            return contextlib.nullcontext()
        return torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False)
