"""The runtimes that run exported models, behind one registry.

An entry of :data:`BACKENDS` names a module with a function
``load(path, *, device, threads, trust) -> Runtime``; the module is imported only when a model is
loaded with this backend.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from effdet_deploy.artifact.modelfile import (
    SUFFIXES,
    require_content,
    require_model_file,
    warn_if_changed,
)
from effdet_deploy.errors import DeviceError, UnknownNameError, UsageError, import_failure
from effdet_deploy.runtimes.instructions import require_exact_sums

if TYPE_CHECKING:
    from types import ModuleType

    from effdet_deploy.artifact.modelfile import Content
    from effdet_deploy.runtimes.adapter import Runtime

_THREADS_PER_CPU = 32
"""At most this many threads per CPU are allowed: ten thousand stall a machine for minutes."""


@dataclass(frozen=True)
class Backend:
    """A runtime for one kind of file: the package it needs, and the extra that installs it.

    ``file`` is the module in this folder, if its name is not ``name``.
    """

    name: str
    content: Content
    package: str
    extra: str = ""
    file: str = ""

    @property
    def module(self) -> str:
        """The full name of the module that implements this backend."""
        return f"{__name__}.{self.file or self.name}"


BACKENDS = {
    each.name: each
    # If several backends run one kind of file, "auto" chooses the one that is listed first.
    for each in (
        Backend("onnxruntime", "onnx", "onnxruntime"),
        Backend("openvino", "onnx", "openvino", "openvino"),
        Backend("torchscript", "torchscript", "torch", "export"),
        Backend("tensorrt", "tensorrt", "tensorrt", "tensorrt", "tensorrt.engine_runtime"),
    )
}


def load_runtime(
    path: str | Path,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    trust: bool = False,
    allow_saturation: bool = False,
) -> Runtime:
    """Load the model at ``path``.

    Args:
        path: an exported model; its content must match its suffix.
        backend: a name in :data:`BACKENDS`, or ``"auto"`` to go by the suffix.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``. If a named device is missing,
            an error is raised; ``"auto"`` takes a GPU if the backend can use one.
        threads: CPU threads; None lets the runtime choose.
        trust: load a TensorRT engine, which is native code, even if it has no sidecar (the JSON
            file beside a model) to verify it with.
        allow_saturation: load an INT8 file even if its sums can overflow on this processor.

    Raises:
        UnknownNameError: the backend, suffix or device is unknown.
        UsageError: ``threads`` is below 1, or far above the number of processors.
        ModelFileError: the file is unreadable, or its content does not match its suffix.
        MissingError: a package, the device or a processor instruction is missing.
    """
    path = Path(path)
    require_model_file(path)
    content = _chosen(path, backend).content
    require_content(path, content, ", or a --backend that takes this file")
    from effdet_deploy.runtimes.lanes import usable_cpus

    most = _THREADS_PER_CPU * len(usable_cpus())
    if threads is not None and not 1 <= threads <= most:
        raise UsageError(
            f"The number of threads must be from 1 to {most} on this machine, not {threads}.",
            "Leave --threads out to let the runtime choose.",
        )
    module = import_backend(path, backend)
    runtime = cast("Runtime", module.load(path, device=device, threads=threads, trust=trust))
    if content != "tensorrt":
        # tensorrt.engine_runtime refuses a changed engine, because an engine is native code.
        warn_if_changed(path)
    if not allow_saturation:
        try:
            require_exact_sums(path, runtime)
        except DeviceError:
            runtime.close()
            raise
    return runtime


def import_backend(path: Path, backend: str = "auto") -> ModuleType:
    """Import the backend for the kind of file that ``path`` names; the file is not read.

    Raises:
        UnknownNameError: the backend or suffix is unknown.
        MissingPackageError: the backend's package is not installed.
        DeviceError: the package is installed but cannot be loaded.
    """
    chosen = _chosen(path, backend)
    try:
        return importlib.import_module(chosen.module)
    except ImportError as error:
        raise import_failure(error, chosen.package, chosen.name, chosen.extra) from error


def _chosen(path: Path, backend: str) -> Backend:
    """Return the named backend, or for ``auto`` the one that fits the suffix of ``path``."""
    if backend in BACKENDS:
        return BACKENDS[backend]
    if backend != "auto":
        raise UnknownNameError("backend", backend, [*BACKENDS, "auto"])
    if (suffix := path.suffix.lower()) not in SUFFIXES:
        raise UnknownNameError("kind of model file", path.suffix or path.name, SUFFIXES)
    return next(each for each in BACKENDS.values() if each.content == SUFFIXES[suffix])
