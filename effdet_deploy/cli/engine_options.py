"""The options of an engine build, shared by ``build`` and ``export``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effdet_deploy.exporters.build_options import BuildOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

Backend = Annotated[
    str, typer.Option(help="tensorrt, or tensorrt-rtx, which builds without a GPU.")
]
Workspace = Annotated[
    float | None, typer.Option(metavar="GB", help="Scratch memory of a layer, in GiB.")
]
OptLevel = Annotated[
    int | None, typer.Option(metavar="0..5", help="0 builds quickly, 5 runs quickly.")
]
TimingCache = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Kernel timings to reuse and to update.")
]
Tf32 = Annotated[bool, typer.Option("--tf32", help="Let FP32 convolutions compute in TF32.")]
HardwareCompatible = Annotated[
    str, typer.Option(help="none, ampere+ or same-compute-capability: which GPUs run it.")
]
VersionCompatible = Annotated[
    bool, typer.Option("--version-compatible", help="Run under later TensorRT releases too.")
]
Refit = Annotated[bool, typer.Option("--refit", help="Let weights be replaced later.")]
StripPlan = Annotated[bool, typer.Option("--strip-plan", help="Leave the weights out.")]
DlaCore = Annotated[int | None, typer.Option(metavar="N", help="Run on this DLA core of a Jetson.")]


def build_options(given: Mapping[str, Any]) -> BuildOptions:
    """Turn a command's parameters into checked options; raises UsageError."""
    return BuildOptions(**{each.name: given[each.name] for each in fields(BuildOptions)})


def is_default(name: str, value: object) -> bool:
    """Tell whether ``name`` is an option of an engine build that was left at its default."""
    return any(each.name == name and each.default == value for each in fields(BuildOptions))
