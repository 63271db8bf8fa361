"""Comparing an exported ONNX file with eager PyTorch, in the runtime that the file is for."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import warnings
from typing import TYPE_CHECKING

from effdet_deploy.errors import DeviceError, EffdetDeployWarning
from effdet_deploy.parity.comparison import verify
from effdet_deploy.parity.side import open_export
from effdet_deploy.runtimes.instructions import describe_kernels, instruction_set, is_exact

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import DetectorSpec, Target
    from effdet_deploy.exporters.options import ExportOptions
    from effdet_deploy.parity.side import Side
    from effdet_deploy.parity.tolerances import Tolerance
    from effdet_deploy.parity.verdict import ParityReport

_NO_OPENVINO = (
    "OpenVINO, for which the file is laid out, is not installed: ONNX Runtime runs the file in "
    "float for the comparison. To compare it in OpenVINO: pip install 'effdet-deploy[openvino]'."
)
_NO_TENSORRT = (
    "TensorRT, for which the file is laid out, cannot run the file here: ONNX Runtime runs the "
    "file in float for the comparison."
)


def verifying_runtime(target: Target | None) -> tuple[str, str]:
    """Return the runtime that runs files for ``target`` here, and why it is not the intended one.

    The reason is empty if it is the runtime that the target means, or if there is no target.
    """
    if target == "openvino":
        present = importlib.util.find_spec("openvino") is not None
        return ("openvino", "") if present else ("onnxruntime", _NO_OPENVINO)
    return "onnxruntime", _NO_TENSORRT if target == "tensorrt" else ""


def require_verifiable(options: ExportOptions) -> None:
    """Warn before an export if the comparison at its end cannot use the intended runtime.

    Warns:
        EffdetDeployWarning: the runtime that the file is for is not installed.

    Raises:
        DeviceError: the full range of INT8 overflows on this processor.
    """
    if not options.verify or options.target not in ("openvino", "onnxruntime"):
        return
    runtime, not_run = verifying_runtime(options.target)
    if not_run:
        warnings.warn(not_run, EffdetDeployWarning, stacklevel=3)
    here = instruction_set(runtime)
    if options.int8_range == "full" and runtime == options.target and not is_exact(here):
        raise DeviceError(
            "A file with --int8-range full can only be compared on a processor with VNNI, but "
            f"{runtime} can only use {here} on this one.",
            "Leave --int8-range out for a file that is right on every x86 processor, or pass "
            "--no-verify.",
        )


def verify_onnx(
    path: Path,
    spec: DetectorSpec,
    reference: Side,
    images: list[NDArray[np.uint8]],
    tolerance: Tolerance | None = None,
) -> ParityReport:
    """Compare the file at ``path`` with eager PyTorch, on the CPU.

    The file runs in OpenVINO if it is for OpenVINO and OpenVINO is installed. Otherwise it runs in
    ONNX Runtime, which computes files for TensorRT in float.
    """
    runtime, not_run = verifying_runtime(spec.precision.target)
    with contextlib.ExitStack() as stack:
        candidate = open_export(path, spec, stack, backend=runtime, device="cpu")
        report = verify(candidate, reference, images, tolerance)
    return dataclasses.replace(report, computed_by=describe_kernels(runtime), not_run=not_run)
