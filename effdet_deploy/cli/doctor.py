"""``effdet-deploy doctor``: what is installed, which devices there are, what is missing for what.

It installs nothing and imports neither torch nor an engine other than ONNX Runtime.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Purpose:
    """Something to do with this package, the distributions it needs and how to get them."""

    name: str
    extra: str
    packages: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command that installs all that it needs."""
        return (
            f"pip install 'effdet-deploy[{self.extra}]'"
            if self.extra
            else "pip install effdet-deploy"
        )


PURPOSES = (
    Purpose("run models", "", ("numpy", "pillow", "onnxruntime", "typer", "rich")),
    Purpose(
        "export and verify",
        "export",
        ("torch", "torchvision", "timm", "safetensors", "onnx", "onnx-ir", "onnxscript", "onnxsim"),
    ),
    Purpose("run on OpenVINO", "openvino", ("openvino",)),
    Purpose("measure mAP", "eval", ("pycocotools",)),
    Purpose("build TensorRT engines", "tensorrt", ("tensorrt", "cuda-python", "onnx")),
    Purpose(
        "try NVIDIA's builder without a GPU",
        "tensorrt-rtx",
        ("tensorrt-rtx-cu12-libs", "tensorrt-rtx-cu12-bindings", "onnx"),
    ),
)
_SERVES_AS_WELL = {"onnxruntime": "onnxruntime-gpu", "cuda-python": "pycuda"}
_TWO_RUNTIMES = (
    "onnxruntime and onnxruntime-gpu are both installed; they overwrite each other's files.",
    "Keep one: pip uninstall onnxruntime onnxruntime-gpu; then pip install the one you want.",
)
_GPU_SWAP = (
    "There is an NVIDIA GPU, and this onnxruntime has no CUDA provider.",
    "To use it: pip uninstall onnxruntime; pip install onnxruntime-gpu.",
)


def run(
    json_file: option.JsonFile = None,
) -> None:
    """Show what is installed here, which devices there are, and what is missing for what."""
    console.require_targets(json_file)
    document = examine()
    console.write_json(json_file, document)
    screen = console.stdout()
    screen.print(_machine_table(document))
    screen.print(_purpose_table(document))
    for each in document["purposes"]:
        if not each["ready"]:
            screen.print(f"To {each['purpose']}: {each['command']}", markup=False)
    for cause, remedy in document["notices"]:
        console.note(f"{cause} {remedy}")


def examine() -> dict[str, Any]:
    """Collect what this machine has, as a plain document."""
    from effdet_deploy._version import __version__
    from effdet_deploy.runtimes.gpu import list_gpus

    gpus = [each.name for each in list_gpus()]
    providers = onnxruntime_providers()
    return {
        "effdet-deploy": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpus": gpus,
        "onnxruntime_providers": providers,
        "purposes": [_examine_purpose(each) for each in PURPOSES],
        "notices": _notices(gpus, providers),
    }


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


def _examine_purpose(purpose: Purpose) -> dict[str, Any]:
    found = {each: _version_for(each) for each in purpose.packages}
    return {
        "purpose": purpose.name,
        "ready": all(found.values()),
        "packages": found,
        "command": _remedy(purpose, [name for name, version in found.items() if not version]),
    }


def _remedy(purpose: Purpose, missing: list[str]) -> str:
    """A TensorRT that came with the system, as on a Jetson, must not be joined by another."""
    if "tensorrt" in purpose.packages and missing and "tensorrt" not in missing:
        return f"pip install {' '.join(missing)}"
    return purpose.command


def _version_for(package: str) -> str | None:
    """Another distribution may serve as well; its name is told."""
    version, other = installed_version(package), _SERVES_AS_WELL.get(package)
    if version is None and other is not None:
        found = installed_version(other)
        return found and f"{found} ({other})"
    return version


def _notices(gpus: list[str], providers: list[str]) -> list[tuple[str, str]]:
    notices = []
    if installed_version("onnxruntime") and installed_version("onnxruntime-gpu"):
        notices.append(_TWO_RUNTIMES)
    if gpus and "CUDAExecutionProvider" not in providers:
        notices.append(_GPU_SWAP)
    return notices


def _machine_table(document: dict[str, Any]) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows = (
        ("effdet-deploy", f"{document['effdet-deploy']} on Python {document['python']}"),
        ("machine", f"{document['platform']}, {document['cpus']} CPUs"),
        ("NVIDIA GPUs", ", ".join(document["gpus"]) or "none"),
        ("ONNX Runtime", ", ".join(document["onnxruntime_providers"]) or "not installed"),
    )
    for name, value in rows:
        table.add_row(name, Text(value))
    return table


def _purpose_table(document: dict[str, Any]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for head in ("", "to", "installed", "missing"):
        table.add_column(head, overflow="fold")
    for each in document["purposes"]:
        have = [f"{name} {version}" for name, version in each["packages"].items() if version]
        lack = [name for name, version in each["packages"].items() if not version]
        mark = Text("✓", "green") if each["ready"] else Text("✗", "red")
        table.add_row(mark, each["purpose"], Text("\n".join(have)), Text("\n".join(lack)))
    return table
