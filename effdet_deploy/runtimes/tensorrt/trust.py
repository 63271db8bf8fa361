"""What is checked before an engine, which is native code, is deserialised."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from effdet_deploy.artifact.modelfile import read_sidecar
from effdet_deploy.errors import DeviceError, ModelFileError, UnknownNameError
from effdet_deploy.files import sha256_bytes, sidecar_path
from effdet_deploy.runtimes.tensorrt.library import NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from effdet_deploy.artifact.spec import DetectorSpec, EngineSpec
    from effdet_deploy.runtimes.gpu import Gpu

_DEVICE = re.compile(r"auto|cuda(?::(\d+))?")
_AMPERE = 8.0
_REBUILD = "Build it on this machine from its ONNX file: effdet-deploy build model.onnx "


def device_index(device: str, gpus: tuple[Gpu, ...]) -> int:
    """Return which GPU ``device`` names.

    Raises:
        UnknownNameError: it names none.
        DeviceError: there is no such GPU; engines run nowhere else.
    """
    match = _DEVICE.fullmatch(device)
    if match is None and device != "cpu":
        raise UnknownNameError("device", device, ("auto", "cuda", "cuda:1"))
    if match is None:
        raise DeviceError(
            "A TensorRT engine runs on an NVIDIA GPU only, and --device cpu was asked for.",
            "Run the ONNX file it was built from on the CPU.",
        )
    index = int(match.group(1) or 0)
    if index >= len(gpus):
        raise DeviceError(
            f"The device '{device}' was asked for, and the NVIDIA driver reports {len(gpus)} GPUs.",
            "Run 'effdet-deploy doctor', or run the ONNX file on the CPU.",
        )
    return index


def trusted_spec(path: Path, plan: bytes, *, trust: bool) -> DetectorSpec | None:
    """Return the spec in the sidecar after checking that the sidecar is this plan's.

    Returns:
        None where there is no sidecar and ``trust`` says to go on.

    Raises:
        ModelFileError: the plan is not the one that the sidecar is about, or there is no sidecar
            and no trust.
    """
    sidecar = read_sidecar(path)
    if sidecar is None or sidecar.spec is None:
        if trust:
            return None
        raise ModelFileError(
            f"The engine '{path}' has no sidecar '{sidecar_path(path).name}', and an engine is "
            "native code that cannot be checked without it.",
            "Put the sidecar beside it under that name, or pass --trust if you know where the "
            "engine comes from.",
        )
    if sidecar.sha256 != sha256_bytes(plan):
        raise ModelFileError(
            f"The engine '{path}' is not the one that its sidecar is about: its SHA-256 differs.",
            "It was edited, replaced or renamed: get the engine and its sidecar again, together.",
        )
    return sidecar.spec


def require_same_library(path: Path, built: EngineSpec, version: str) -> None:
    """Check that this release of TensorRT takes the engine.

    Raises:
        ModelFileError: it was built by another release.
    """
    name = NAMES.get(built.backend, built.backend)
    if built.version == version or (
        "version-compatible" in built.traits and _is_later(version, built.version)
    ):
        return
    raise ModelFileError(
        f"'{path}' was built for {name} {built.version}, and this is {name} {version}.",
        f"{_REBUILD}'{path.name}'; or install that release.",
    )


def _is_later(version: str, built: str) -> bool:
    """Version-compatible engines run under later releases of one major version."""
    ours, theirs = (
        [int(part) for part in re.findall(r"\d+", each)] or [0] for each in (version, built)
    )
    return ours[0] == theirs[0] and ours >= theirs


def require_same_gpu(path: Path, built: EngineSpec, gpu: Gpu) -> None:
    """Check that the engine was built for this kind of GPU.

    Raises:
        ModelFileError: it was built for another.
    """
    # An engine of TensorRT-RTX is compiled for the GPU when it is loaded.
    if built.backend == "tensorrt-rtx" or not built.gpu or _fits(built, gpu):
        return
    raise ModelFileError(
        f"'{path}' was built for {built.gpu} (compute capability {built.compute_capability}), and "
        f"this is {gpu}.",
        f"{_REBUILD}'{path.name}'.",
    )


def _fits(built: EngineSpec, gpu: Gpu) -> bool:
    if "hardware-compatible=ampere+" in built.traits:
        return float(gpu.compute_capability) >= _AMPERE
    if "hardware-compatible=same-compute-capability" in built.traits:
        return gpu.compute_capability == built.compute_capability
    return (gpu.name, gpu.compute_capability) == (built.gpu, built.compute_capability)


def require_weights(path: Path, built: EngineSpec) -> None:
    """Check that the engine holds its weights; raises ModelFileError."""
    if built.is_stripped:
        raise ModelFileError(
            f"'{path}' was built with --strip-plan and holds no weights.",
            "Refit it with TensorRT's refitter first, or build it without --strip-plan.",
        )
