"""The packages and devices of this machine, and the packages that a task still lacks.

These functions install nothing and import no runtime but ONNX Runtime. They read the packages of an
extra from the metadata of the installed distribution, which are made from ``pyproject.toml``.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from typing import Any

from effdet_deploy._version import __version__
from effdet_deploy.runtimes import instructions
from effdet_deploy.runtimes.gpu import list_gpus

_DISTRIBUTION = "effdet-deploy"
PURPOSES = {
    "": "run models",
    "export": "export and verify",
    "openvino": "run on OpenVINO",
    "eval": "measure mAP",
    "report": "draw reports and charts",
    "video": "detect in videos",
    "batch": "detect in many pictures on Ray",
    "keras": "read weights that Keras saved as .h5",
    "tensorrt": "build TensorRT engines",
    "tensorrt-rtx": "try NVIDIA's builder without a GPU",
}
"""What the base install and the extras are for; extras for developers are left out."""
_REQUIREMENT = re.compile(r"([\w.-]+)(?:.*extra == ['\"]([\w-]+)['\"])?")
_SERVES_AS_WELL = {"onnxruntime": "onnxruntime-gpu", "cuda-python": "pycuda"}
"""Package → another package that can take its place."""
_NOT_INSTALLED = (
    "effdet-deploy runs from its source tree and is not installed, so its extras are unknown.",
    "Install it: pip install effdet-deploy.",
)
_TWO_RUNTIMES = (
    "onnxruntime and onnxruntime-gpu are both installed; they overwrite each other's files.",
    "Keep one: pip uninstall onnxruntime onnxruntime-gpu; then pip install the one you want.",
)
_GPU_SWAP = (
    "There is an NVIDIA GPU, but this onnxruntime has no CUDA provider.",
    "To use the GPU: pip uninstall onnxruntime; pip install onnxruntime-gpu.",
)


def examine() -> dict[str, Any]:
    """Return what this machine has and lacks, as a document for JSON."""
    gpus = [each.name for each in list_gpus()]
    providers = onnxruntime_providers()
    packages = packages_by_extra()
    notices = (
        (_NOT_INSTALLED, not packages),
        (_TWO_RUNTIMES, all(map(installed_version, ("onnxruntime", "onnxruntime-gpu")))),
        (_GPU_SWAP, gpus and "CUDAExecutionProvider" not in providers),
    )
    return {
        "effdet-deploy": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "int8": {
            runtime: {"instructions": here, "full_range_is_right": instructions.is_exact(here)}
            for runtime in ("onnxruntime", "openvino")
            for here in (instructions.instruction_set(runtime),)
        },
        "gpus": gpus,
        "onnxruntime_providers": providers,
        "purposes": [_examine(each, packages[each]) for each in PURPOSES if each in packages],
        "notices": [notice for notice, holds in notices if holds],
    }


def packages_by_extra() -> dict[str, list[str]]:
    """Return the packages of every extra, and under ``""`` those of the base install."""
    try:
        requirements = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for each in requirements:
        if match := _REQUIREMENT.match(each):
            package, extra = match.groups("")
            found.setdefault(extra, []).append(package)
    return found


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def onnxruntime_providers() -> list[str]:
    """Return the execution providers that the installed ONNX Runtime was built with."""
    try:
        import onnxruntime
    except ImportError:
        return []
    return [str(each) for each in onnxruntime.get_available_providers()]


def _examine(extra: str, packages: list[str]) -> dict[str, Any]:
    found = {each: installed_version(each) for each in packages}
    for name, other in _SERVES_AS_WELL.items():
        if name in found and found[name] is None and (version := installed_version(other)):
            found[name] = f"{version} ({other})"
    missing = [name for name, version in found.items() if not version]
    wanted = f"'{_DISTRIBUTION}[{extra}]'" if extra else _DISTRIBUTION
    if "tensorrt" in packages and "tensorrt" not in missing:
        # TensorRT may have come with the system, as on a Jetson; pip must not install another one.
        wanted = " ".join(missing) or wanted
    return {
        "purpose": PURPOSES[extra],
        "ready": not missing,
        "packages": found,
        "command": f"pip install {wanted}",
    }
