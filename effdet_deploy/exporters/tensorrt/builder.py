"""What this machine can build, asked before any work starts; and how to finish elsewhere."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from effdet_deploy.artifact.spec import INPUT_NAME, BatchSpec
from effdet_deploy.errors import DeviceError
from effdet_deploy.exporters.build_options import BuildOptions, option_name
from effdet_deploy.exporters.tensorrt.messages import Request
from effdet_deploy.exporters.tensorrt.process import run_builder
from effdet_deploy.progress import silent

if TYPE_CHECKING:
    from pathlib import Path

    from effdet_deploy.artifact.spec import EngineSpec, InputSpec


def require_builder(options: BuildOptions) -> EngineSpec:
    """Start the builder once, in a process of its own, and return what it is.

    Raises:
        MissingPackageError: the backend is not installed.
        DeviceError: its libraries do not load, or it wants a GPU and finds none.
    """
    builder = run_builder(Request(options), silent)
    if (options.refit or options.strip_plan) and not builder.gpu:
        raise DeviceError(
            "TensorRT-RTX needs a GPU to build an engine for refitting, and finds none.",
            "Leave --refit and --strip-plan out, or build on a machine with a GPU.",
        )
    return builder


def finish_commands(
    onnx_path: Path, engine_path: Path, options: BuildOptions, size: InputSpec, batch: BatchSpec
) -> tuple[str, str]:
    """Return the two commands that build the engine on its target: ours, and ``trtexec``'s.

    Paths are those of this machine: the ONNX file is to be copied.
    """
    ours = ["effdet-deploy", "build", onnx_path.name, engine_path.name, *_our_options(options)]
    theirs = [
        "trtexec",
        f"--onnx={onnx_path.name}",
        f"--saveEngine={engine_path.name}",
        "--stronglyTyped",  # TensorRT 11 knows no other way, and takes it in silence
        *_trtexec_shapes(size, batch),
        *_trtexec_options(options),
    ]
    return shlex.join(ours), shlex.join(theirs)


def _our_options(options: BuildOptions) -> list[str]:
    given: list[str] = []
    default = BuildOptions()
    for name in BuildOptions.__dataclass_fields__:
        value = getattr(options, name)
        if value != getattr(default, name):
            given += [option_name(name)] if value is True else [option_name(name), str(value)]
    return given


def _trtexec_shapes(size: InputSpec, batch: BatchSpec) -> list[str]:
    if batch.is_static:
        return []
    sizes = {"min": batch.minimum, "opt": batch.optimum, "max": batch.maximum}
    return [
        f"--{which}Shapes={INPUT_NAME}:{'x'.join(map(str, size.shape(number)))}"
        for which, number in sizes.items()
    ]


_TRTEXEC_LEVELS = {"ampere+": "ampere+", "same-compute-capability": "sameComputeCapability"}


def _trtexec_options(options: BuildOptions) -> list[str]:
    level = _TRTEXEC_LEVELS.get(options.hardware_compatible)
    wanted = {
        "--noTF32": not options.tf32,
        f"--memPoolSize=workspace:{(options.workspace or 0) * 1024:.0f}M": options.workspace,
        f"--builderOptimizationLevel={options.opt_level}": options.opt_level is not None,
        f"--timingCacheFile={options.timing_cache}": options.timing_cache,
        f"--hardwareCompatibilityLevel={level}": level,
        "--versionCompatible": options.version_compatible,
        "--refit": options.refit,
        "--stripWeights": options.strip_plan,
        f"--useDLACore={options.dla_core}": options.dla_core is not None,
        "--allowGPUFallback": options.dla_core is not None,
    }
    return [option for option, given in wanted.items() if given]
