"""The engines that run exported models, behind one registry.

Each row of :data:`BACKENDS` names a module with a function
``load(path, *, device, threads, trust) -> Runtime``; it is imported only when chosen.
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
"""Ten thousand threads starve a machine for minutes before the first picture is done."""


@dataclass(frozen=True)
class Backend:
    """A way to run a kind of file: the package it needs, and the extra that brings it."""

    name: str
    content: Content
    package: str
    extra: str = ""
    file: str = ""

    @property
    def module(self) -> str:
        """The module that runs it, in this folder."""
        return f"{__name__}.{self.file or self.name}"


BACKENDS = {
    each.name: each
    # Of several backends for one content, "auto" chooses the first.
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
        path: an exported model; the content must be what its suffix says.
        backend: a name in :data:`BACKENDS`, or ``"auto"`` to go by the suffix.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``. A device that is named is used or
            refused; ``"auto"`` takes the GPU where the engine has one.
        threads: CPU threads; None lets the engine choose.
        trust: load native code that has no sidecar to be checked against.
        allow_saturation: load an INT8 file that this processor adds up wrongly.

    Raises:
        UnknownNameError: no such backend, suffix or device.
        UsageError: no thread, or many times more than there are processors.
        ModelFileError: the file is unreadable, or holds something else than its name says.
        MissingError: the engine's package, the device or an instruction is not there.
    """
    path = Path(path)
    require_model_file(path)
    content = _chosen(path, backend).content
    require_content(path, content)
    from effdet_deploy.runtimes.lanes import usable_cpus

    most = _THREADS_PER_CPU * len(usable_cpus())
    if threads is not None and not 1 <= threads <= most:
        raise UsageError(
            f"The number of threads must be from 1 to {most} on this machine, not {threads}.",
            "Leave --threads out to let the engine choose.",
        )
    module = import_backend(path, backend)
    runtime = cast("Runtime", module.load(path, device=device, threads=threads, trust=trust))
    if content != "tensorrt":
        # An engine is native code, and its adapter refuses one that was changed.
        warn_if_changed(path)
    if not allow_saturation:
        try:
            require_exact_sums(path, runtime)
        except DeviceError:
            runtime.close()
            raise
    return runtime


def import_backend(path: Path, backend: str = "auto") -> ModuleType:
    """Import the engine that runs the kind of file that ``path`` names; the file is not read.

    Raises:
        UnknownNameError: no such backend or suffix.
        MissingPackageError: the engine's package is not installed.
        DeviceError: it is installed and cannot be loaded.
    """
    chosen = _chosen(path, backend)
    try:
        return importlib.import_module(chosen.module)
    except ImportError as error:
        raise import_failure(error, chosen.package, chosen.name, chosen.extra) from error


def _chosen(path: Path, backend: str) -> Backend:
    """Return the named backend, or the one for what the suffix of ``path`` says."""
    if backend in BACKENDS:
        return BACKENDS[backend]
    if backend != "auto":
        raise UnknownNameError("backend", backend, [*BACKENDS, "auto"])
    if (suffix := path.suffix.lower()) not in SUFFIXES:
        raise UnknownNameError("kind of model file", path.suffix or path.name, SUFFIXES)
    return next(each for each in BACKENDS.values() if each.content == SUFFIXES[suffix])
