"""TensorRT's error messages in the user's words."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from effdet_deploy.errors import (
    DeviceError,
    EffdetDeployError,
    MissingPackageError,
    ModelFileError,
    ResourceError,
    UsageError,
)
from effdet_deploy.runtimes.runtime_errors import OUT_OF_MEMORY
from effdet_deploy.runtimes.tensorrt.library import MODULES, NAMES, essence

if TYPE_CHECKING:
    from effdet_deploy.exporters.tensorrt.messages import Request

_NO_GPU = re.compile(r"CUDA driver version is insufficient|no CUDA-capable device|CUDA init")
"""What TensorRT-RTX logs on every machine without a GPU, although it builds there."""
_SHOWN_MESSAGES = 5
_RUN_CHECK = "Find the reason with: effdet-deploy check"
_STAGES: dict[str, tuple[type[EffdetDeployError], str, str]] = {
    "start": (
        DeviceError,
        "{name} finds no usable GPU: {said}.",
        "Build on the machine that the engine is for, or use --backend tensorrt-rtx.",
    ),
    "options": (
        UsageError,
        "The engine cannot be built as asked: {said}.",
        "Leave this option out, or build with another release of TensorRT.",
    ),
    "parse": (
        ModelFileError,
        "{name} cannot read '{model}': {said}.",
        f"{_RUN_CHECK}; an export with --nms static avoids most operators that TensorRT lacks.",
    ),
    "build": (
        ModelFileError,
        "{name} could not build an engine from '{model}': {said}.",
        f"{_RUN_CHECK}.",
    ),
    "memory": (
        ResourceError,
        "The memory ran out while {name} built an engine from '{model}': {said}.",
        "Raise --workspace, close other programs, or export a smaller --batch or --image-size.",
    ),
}


def build_error(request: Request, stage: str, messages: list[str]) -> EffdetDeployError:
    """Return the error for TensorRT's messages at a stage of the build."""
    telling = [each for each in messages if not _NO_GPU.search(each)] or messages
    more = [f"and {len(telling) - _SHOWN_MESSAGES} more"] if len(telling) > _SHOWN_MESSAGES else []
    if stage in ("parse", "build") and any(map(OUT_OF_MEMORY.search, messages)):
        stage = "memory"
    kind, cause, remedy = _STAGES[stage]
    said = {
        "name": NAMES[request.options.backend],
        "model": Path(request.onnx).name,
        "said": essence([*telling[:_SHOWN_MESSAGES], *more]),
    }
    return kind(cause.format(**said), remedy)


def import_error(request: Request, message: str) -> EffdetDeployError:
    """Return the error for a backend that cannot be imported: it is absent or broken."""
    backend = request.options.backend
    module = MODULES[backend]
    if f"'{module}'" in message:
        purpose = f"building engines with {NAMES[backend]}"
        return MissingPackageError(module.replace("_", "-"), purpose, backend)
    return DeviceError(
        f"The package '{module}' is installed but cannot be loaded: {message}.",
        "Install TensorRT's libraries of the same release, and an NVIDIA driver that they support.",
    )


def crash_error(request: Request, returncode: int, last_words: str) -> EffdetDeployError:
    """Return the error for a builder process that ended without a message."""
    name, model = NAMES[request.options.backend], Path(request.onnx).name
    how = f"exit code {returncode}" if returncode >= 0 else f"signal {-returncode}"
    if -returncode in set(signal.Signals):
        how = signal.Signals(-returncode).name
    said = f" ({last_words})" if last_words else ""
    if how == "SIGKILL":
        return ResourceError(
            f"The process that builds the engine was ended by SIGKILL{said}.",
            "Usually memory ran out: close other programs, or build on a machine with more memory.",
        )
    # Without a model, the process was only started to find out its version.
    if not model:
        return DeviceError(
            f"{name} crashed with {how} when it was started{said}.",
            "Install another release of it, or an NVIDIA driver that it supports.",
        )
    return ModelFileError(
        f"{name} crashed with {how} on '{model}'{said}.",
        "Try another release of TensorRT or a lower --opt-level; no engine was written.",
    )
