"""The engines that run exported models, behind one registry.

Each row of :data:`BACKENDS` names a module with a function
``load(path, *, device, threads, trust) -> Runtime``; it is imported only when chosen.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from effdet_deploy.artifact.modelfile import SUFFIXES, require_content, require_model_file
from effdet_deploy.errors import UnknownNameError, import_failure
from effdet_deploy.runtimes.adapter import checked_threads

if TYPE_CHECKING:
    from types import ModuleType

    from effdet_deploy.artifact.modelfile import Content
    from effdet_deploy.runtimes.adapter import Runtime


@dataclass(frozen=True)
class Backend:
    """A way to run a kind of file: the module, the package it needs and the extra that brings it.

    Of several backends for one content, the first in the table is the one ``auto`` chooses.
    """

    name: str
    content: Content
    module: str
    package: str
    extra: str = ""


BACKENDS = {
    each.name: each
    for each in (
        Backend("onnxruntime", "onnx", "effdet_deploy.runtimes.onnxruntime", "onnxruntime"),
        Backend("openvino", "onnx", "effdet_deploy.runtimes.openvino", "openvino", "openvino"),
        Backend(
            "torchscript", "torchscript", "effdet_deploy.runtimes.torchscript", "torch", "export"
        ),
        Backend(
            "tensorrt",
            "tensorrt",
            "effdet_deploy.runtimes.tensorrt.engine_runtime",
            "tensorrt",
            "tensorrt",
        ),
    )
}


def load_runtime(
    path: str | Path,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    trust: bool = False,
) -> Runtime:
    """Load the model at ``path``.

    Args:
        path: an exported model; the content must be what its suffix says.
        backend: a name in :data:`BACKENDS`, or ``"auto"`` to go by the suffix.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``. A device that is named is used or
            refused; ``"auto"`` takes the GPU where the engine has one.
        threads: CPU threads; None lets the engine choose.
        trust: load native code that has no sidecar to be checked against.

    Raises:
        UnknownNameError: no such backend, suffix or device.
        ModelFileError: the file is unreadable, or holds something else than its name says.
        MissingError: the engine's package or the device is not there.
    """
    path = Path(path)
    require_model_file(path)
    content = _content(path, backend)
    require_content(path, content)
    checked_threads(threads)
    module = import_backend(path, backend)
    return cast("Runtime", module.load(path, device=device, threads=threads, trust=trust))


def import_backend(path: Path, backend: str = "auto") -> ModuleType:
    """Import the engine that runs the kind of file that ``path`` names; the file is not read.

    Raises:
        UnknownNameError: no such backend or suffix.
        MissingPackageError: the engine's package is not installed.
        DeviceError: it is installed and cannot be loaded.
    """
    return _import(_backend_for(_content(path, backend), backend))


def _content(path: Path, backend: str) -> Content:
    """What ``path`` has to hold: what the named backend runs, else what the suffix says."""
    if backend in BACKENDS:
        return BACKENDS[backend].content
    if backend != "auto":
        raise UnknownNameError("backend", backend, [*BACKENDS, "auto"])
    if (suffix := path.suffix.lower()) in SUFFIXES:
        return SUFFIXES[suffix]
    raise UnknownNameError("kind of model file", path.suffix or path.name, SUFFIXES)


def _backend_for(content: Content, name: str) -> Backend:
    if name in BACKENDS:
        return BACKENDS[name]
    for each in BACKENDS.values():
        if each.content == content:
            return each
    raise UnknownNameError("backend for files of the kind", content, BACKENDS)


def _import(backend: Backend) -> ModuleType:
    try:
        return importlib.import_module(backend.module)
    except ImportError as error:
        raise import_failure(error, backend.package, backend.name, backend.extra) from error
