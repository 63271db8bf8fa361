"""What TensorRT says when it gives up, in the user's words."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import (
    DeviceError,
    EffdetDeployError,
    MissingPackageError,
    ModelFileError,
    ResourceError,
    UsageError,
)
from effdet_deploy.runtimes.engine_errors import OUT_OF_MEMORY
from effdet_deploy.runtimes.tensorrt.library import MODULES, NAMES, essence

if TYPE_CHECKING:
    from effdet_deploy.exporters.tensorrt.messages import Request

_NO_GPU = re.compile(r"CUDA driver version is insufficient|no CUDA-capable device|CUDA init")
"""What RTX reports on every machine without a GPU; it builds all the same."""
_SHOWN = 5


def build_error(request: Request, fields: dict[str, Any]) -> EffdetDeployError | OSError:
    """Return the error for a ``failed`` event's ``fields``."""
    stage, messages = fields["stage"], fields["messages"]
    if stage == "check":
        return ModelFileError(*messages)
    if stage == "file":
        return OSError(fields.get("errno") or 0, messages[0], fields["file"])
    if stage == "import":
        return _import_error(request, messages[0])
    if stage == "start":
        return DeviceError(
            f"{NAMES[request.options.backend]} finds no usable GPU: {_listed(messages)}.",
            "Build on the machine that the engine is for, or use --backend tensorrt-rtx.",
        )
    if stage == "options":
        return UsageError(
            f"The engine cannot be built as asked: {_listed(messages)}.",
            "Leave that option out, or build with another release of TensorRT.",
        )
    return _model_error(request, stage, messages)


def _import_error(request: Request, message: str) -> EffdetDeployError:
    module = MODULES[request.options.backend]
    if f"'{module}'" in message:
        return MissingPackageError(
            module.replace("_", "-"),
            f"building engines with {NAMES[request.options.backend]}",
            request.options.backend,
        )
    return DeviceError(
        f"The package '{module}' is installed and cannot be loaded: {message}.",
        "Install TensorRT's libraries of the same release, and an NVIDIA driver that they support.",
    )


def _model_error(request: Request, stage: str, messages: list[str]) -> EffdetDeployError:
    name, said = NAMES[request.options.backend], _listed(messages)
    model = Path(request.onnx).name
    if any(OUT_OF_MEMORY.search(each) for each in messages):
        return ResourceError(
            f"The memory ran out while {name} built an engine from '{model}': {said}.",
            "Free memory or raise --workspace; or export with a smaller --batch or --image-size.",
        )
    if stage == "parse":
        return ModelFileError(
            f"{name} cannot read '{model}': {said}.",
            "See what it takes with: effdet-deploy check; "
            "an export with --nms static avoids operators that it lacks.",
        )
    return ModelFileError(
        f"{name} could not build an engine from '{model}': {said}.",
        "See what it takes with: effdet-deploy check.",
    )


def _listed(messages: list[str]) -> str:
    telling = [each for each in messages if not _NO_GPU.search(each)] or messages
    more = [f"and {len(telling) - _SHOWN} more"] if len(telling) > _SHOWN else []
    return essence([*telling[:_SHOWN], *more])


def crash_error(request: Request, returncode: int, last_words: str) -> EffdetDeployError:
    """Return the error for a process that ended without saying anything."""
    name, model = NAMES[request.options.backend], Path(request.onnx).name
    how = _signal_name(returncode) or f"exit code {returncode}"
    said = f" ({last_words})" if last_words else ""
    if returncode < 0 and -returncode == getattr(signal, "SIGKILL", None):
        return ResourceError(
            f"The process that builds the engine was ended by SIGKILL{said}.",
            "Usually the system ran out of memory: free some, or build on a larger machine.",
        )
    if not model:
        return DeviceError(
            f"{name} crashed with {how} when it was started{said}.",
            "Install another release of it, or an NVIDIA driver that it supports.",
        )
    return ModelFileError(
        f"{name} crashed with {how} on '{model}'{said}.",
        "Try another release of TensorRT or a lower --opt-level; no engine was written.",
    )


def _signal_name(returncode: int) -> str:
    if returncode >= 0:
        return ""
    try:
        return signal.Signals(-returncode).name
    except ValueError:
        return f"signal {-returncode}"
