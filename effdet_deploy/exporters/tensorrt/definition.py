"""The TensorRT calls that make a plan (an engine as bytes), for 10.x, 11.x and TensorRT-RTX.

The module is passed in as ``trt``, because its name differs among the three. Features that a
release may lack are looked up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from effdet_deploy.exporters.build_options import HARDWARE_LEVELS
from effdet_deploy.runtimes.tensorrt.library import register_plugins

if TYPE_CHECKING:
    from collections.abc import Callable

    import tensorrt

    from effdet_deploy.artifact.spec import BatchSpec
    from effdet_deploy.exporters.build_options import BuildOptions
    from effdet_deploy.runtimes.tensorrt.library import Log

_GIB = 1024**3


class BuildFailedError(Exception):
    """TensorRT could not do what it was asked to do.

    Args:
        stage: ``"parse"``, ``"options"`` or ``"build"``.
        messages: TensorRT's messages, the most telling one last.
    """

    def __init__(self, stage: str, messages: list[str]) -> None:
        super().__init__(stage, messages)
        self.stage = stage
        self.messages = messages


def create_builder(trt: Any, log: Log) -> tensorrt.Builder:
    """Return a builder; raises BuildFailedError if TensorRT cannot make one, as without a GPU."""
    try:
        builder: tensorrt.Builder = trt.Builder(log.logger)
    except (TypeError, RuntimeError) as error:  # a C++ factory returned nullptr
        raise BuildFailedError("start", log.errors or [str(error)]) from error
    return builder


def parse(
    trt: Any, builder: tensorrt.Builder, log: Log, onnx_path: str
) -> tensorrt.INetworkDefinition:
    """Read an ONNX file into a strongly typed network.

    Raises:
        BuildFailedError: TensorRT refuses the file; the messages name the nodes.
    """
    register_plugins(trt, log)
    # The flag's number differs between releases; TensorRT 11 has only strongly typed networks.
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser: tensorrt.OnnxParser = trt.OnnxParser(network, log.logger)
    if parser.parse_from_file(onnx_path) and not parser.num_errors:
        return network
    errors = []
    for error in map(parser.get_error, range(parser.num_errors)):
        name, operator = error.node_name(), error.node_operator() or "unknown operator"
        where = f"node '{name}'" if name else f"node {error.node()}"
        errors.append(f"{where} ({operator}): {' '.join(str(error.desc()).split())}")
    raise BuildFailedError("parse", errors or log.errors)


def add_profile(
    builder: tensorrt.Builder,
    config: tensorrt.IBuilderConfig,
    network: tensorrt.INetworkDefinition,
    batch: BatchSpec,
) -> None:
    """Give every input with an open batch dimension the range of ``batch``.

    Raises:
        BuildFailedError: a dimension other than the first is open, or the range is refused.
    """
    profile = builder.create_optimization_profile()
    ranged = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        first, *rest = tuple(tensor.shape)
        if any(side < 0 for side in rest):
            raise BuildFailedError(
                "options",
                [f"the input '{tensor.name}' has dimensions without a size: {list(tensor.shape)}"],
            )
        if first < 0:
            sizes = (batch.minimum, batch.optimum, batch.maximum)
            profile.set_shape(tensor.name, *((size, *rest) for size in sizes))
            ranged = True
    if ranged and config.add_optimization_profile(profile) < 0:
        raise BuildFailedError("options", [f"TensorRT refused the batch range {batch}"])


def configure(
    trt: Any, builder: tensorrt.Builder, options: BuildOptions
) -> tensorrt.IBuilderConfig:
    """Return the builder's configuration for ``options``.

    Raises:
        BuildFailedError: this release or machine does not support an option.
    """
    config = builder.create_builder_config()
    for name, wanted in builder_flags(options).items():
        flag = getattr(trt.BuilderFlag, name, None)
        if wanted and flag is None:
            raise BuildFailedError("options", [f"TensorRT {trt.__version__} has no {name}"])
        if flag is not None:
            (config.set_flag if wanted else config.clear_flag)(flag)
    if options.workspace is not None:
        size = int(options.workspace * _GIB)
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size)
    if options.opt_level is not None:
        config.builder_optimization_level = options.opt_level
    if options.hardware_compatible != "none":
        level = HARDWARE_LEVELS[options.hardware_compatible]
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    if options.dla_core is not None:
        cores = builder.num_DLA_cores
        if options.dla_core >= cores:
            said = (
                f"DLA core {options.dla_core} was asked for, but this machine has {cores} DLA cores"
            )
            raise BuildFailedError("options", [said])
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.dla_core
    return config


def builder_flags(options: BuildOptions) -> dict[str, bool]:
    """Return all TensorRT flags that we use, and whether they are set."""
    return {
        "TF32": options.tf32,
        "REFIT": options.refit,
        "STRIP_PLAN": options.strip_plan,
        "REFIT_IDENTICAL": options.strip_plan and not options.refit,
        "VERSION_COMPATIBLE": options.version_compatible,
        "GPU_FALLBACK": options.dla_core is not None,
    }


def create_monitor(
    trt: Any, report: Callable[[str, int, int], None], stop: Callable[[], bool]
) -> tensorrt.IProgressMonitor:
    """Return a progress monitor.

    Args:
        trt: the module of TensorRT.
        report: called with a phase, its step and its number of steps.
        stop: called after every step; True ends the build.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(
            self,
            phase_name: str,
            parent_phase: str | None,  # noqa: ARG002 - given by position
            num_steps: int,
        ) -> None:
            self.steps[phase_name] = num_steps
            report(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            report(phase_name, step + 1, self.steps.get(phase_name, 0))
            return not stop()

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()


def build(
    builder: tensorrt.Builder,
    network: tensorrt.INetworkDefinition,
    config: tensorrt.IBuilderConfig,
    log: Log,
) -> tensorrt.IHostMemory:
    """Return the plan as a buffer.

    Raises:
        BuildFailedError: TensorRT returned None; the messages say why.
    """
    log.errors.clear()
    plan: tensorrt.IHostMemory | None = builder.build_serialized_network(network, config)
    if plan is None or plan.nbytes == 0:
        raise BuildFailedError("build", log.errors or ["TensorRT gave no reason"])
    return plan
