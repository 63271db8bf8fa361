"""How to finish a build on another machine, if this one cannot build the engine."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from effdet_deploy.artifact.spec import INPUT_NAME, BatchSpec
from effdet_deploy.errors import MissingError
from effdet_deploy.exporters.build_options import BuildOptions, option_name

if TYPE_CHECKING:
    from pathlib import Path

    from effdet_deploy.artifact.spec import InputSpec
    from effdet_deploy.exporters.delivery import Artifact

_TRTEXEC_LEVELS = {"ampere+": "ampere+", "same-compute-capability": "sameComputeCapability"}


def finish_elsewhere(
    missing: MissingError, model: Artifact, engine: Path, options: BuildOptions
) -> MissingError:
    """Return the error for an engine that cannot be built here; it names the ONNX file."""
    ours, theirs = finish_commands(model.path, engine, options, model.spec.input, model.spec.batch)
    verdict = ""
    if model.report is not None:
        status = "passed" if model.report.passed else "was inconclusive"
        verdict = f", and its comparison with PyTorch {status}"
    return MissingError(
        f"{missing.cause} The ONNX file '{model.path}' is ready{verdict}.",
        f"Copy it and '{model.sidecar.name}' to a machine with the GPU and run there:"
        f"\n    {ours}\nor, without effdet-deploy:\n    {theirs}",
    )


def finish_commands(
    onnx_path: Path, engine_path: Path, options: BuildOptions, size: InputSpec, batch: BatchSpec
) -> tuple[str, str]:
    """Return the two commands that build the engine on its target: ours, and ``trtexec``'s.

    Paths are those of this machine; the ONNX file has to be copied.
    """
    ours = ["effdet-deploy", "build", onnx_path.name, engine_path.name]
    default = BuildOptions()
    for name, value in vars(options).items():
        if value != getattr(default, name):
            ours += [option_name(name)] if value is True else [option_name(name), str(value)]
    sizes = {"min": batch.minimum, "opt": batch.optimum, "max": batch.maximum}
    shapes = [
        f"--{which}Shapes={INPUT_NAME}:{'x'.join(map(str, size.shape(number)))}"
        for which, number in sizes.items()
        if not batch.is_static
    ]
    theirs = [
        "trtexec",
        f"--onnx={onnx_path.name}",
        f"--saveEngine={engine_path.name}",
        "--stronglyTyped",  # always so in TensorRT 11, which accepts the option
        *shapes,
        *_trtexec_options(options),
    ]
    return shlex.join(ours), shlex.join(theirs)


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
