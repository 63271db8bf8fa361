"""BuildOptions: the options of an engine build, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, get_args

from effdet_deploy.errors import UnknownNameError, limit, refuse

if TYPE_CHECKING:
    from pathlib import Path

Backend = Literal["tensorrt", "tensorrt-rtx"]
HardwareLevel = Literal["none", "ampere+", "same-compute-capability"]

BACKENDS: tuple[Backend, ...] = get_args(Backend)
HARDWARE_LEVELS: dict[str, str] = {
    "none": "NONE",
    "ampere+": "AMPERE_PLUS",
    "same-compute-capability": "SAME_COMPUTE_CAPABILITY",
}
"""Our names, which are trtexec's in lower case, and the names in TensorRT's enumeration."""
_NOT_IN_RTX = ("timing_cache", "hardware_compatible", "version_compatible", "dla_core")
MAX_OPT_LEVEL = 5
MAX_WORKSPACE = 1024


@dataclass(frozen=True)
class BuildOptions:
    """How to build an engine; the fields are the command line's options of the same name.

    Attributes:
        backend: ``tensorrt`` builds on the target's GPU; ``tensorrt-rtx`` needs no GPU and builds
            for RTX GPUs.
        workspace: GiB of scratch memory that a layer may use; None lets TensorRT decide.
        opt_level: 0 (quick to build) to 5 (quick to run); None lets TensorRT decide.
        timing_cache: a file of kernel timings that is read and updated.
        tf32: let FP32 convolutions round their inputs to 10 bits of mantissa, which is faster.
        hardware_compatible: which other GPUs can run the engine too, at some cost in speed.
        version_compatible: let later TensorRT releases of the same major version run the engine
            too.
        refit: allow the weights in the engine to be replaced later.
        strip_plan: leave the weights out; the engine must be refitted before it runs.
        dla_core: the DLA core of a Jetson to run on; layers that it cannot run stay on the GPU.

    Raises:
        UsageError: a value out of range, or an option that the backend does not have.
    """

    backend: Backend = "tensorrt"
    workspace: float | None = None
    opt_level: int | None = None
    timing_cache: Path | None = None
    tf32: bool = False
    hardware_compatible: HardwareLevel = "none"
    version_compatible: bool = False
    refit: bool = False
    strip_plan: bool = False
    dla_core: int | None = None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise UnknownNameError("backend", self.backend, BACKENDS)
        level = self.hardware_compatible
        if level not in HARDWARE_LEVELS:
            raise UnknownNameError("hardware compatibility level", level, HARDWARE_LEVELS)
        space, effort, core = self.workspace, self.opt_level, self.dla_core
        some_space = space is None or 0 < space <= MAX_WORKSPACE
        refuse(
            limit("--workspace", f"more than 0 and at most {MAX_WORKSPACE} GiB", space, some_space),
            limit("--opt-level", "0 to 5", effort, effort is None or 0 <= effort <= MAX_OPT_LEVEL),
            limit("--dla-core", "0 or more", core, core is None or core >= 0),
            *(
                (
                    f"TensorRT-RTX has no {option_name(each.name)} and would ignore it.",
                    "Leave it out, or build with --backend tensorrt.",
                    getattr(self, each.name) != each.default,
                )
                for each in fields(self)
                if self.backend == "tensorrt-rtx" and each.name in _NOT_IN_RTX
            ),
        )

    def traits(self) -> tuple[str, ...]:
        """Return the options that differ from the defaults, as the spec records them."""
        named = {
            "tf32": self.tf32,
            "refit": self.refit,
            "strip-plan": self.strip_plan,
            "version-compatible": self.version_compatible,
            f"hardware-compatible={self.hardware_compatible}": self.hardware_compatible != "none",
            f"dla={self.dla_core}": self.dla_core is not None,
        }
        return tuple(name for name, wanted in named.items() if wanted)


def option_name(field: str) -> str:
    """Return the option name of a field: ``opt_level`` → ``--opt-level``."""
    return f"--{field.replace('_', '-')}"
