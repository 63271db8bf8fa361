"""An exported ONNX file compared with eager PyTorch, in the engine that it is for."""

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
    "OpenVINO, which the file is laid out for, is not installed here: ONNX Runtime computes it, in "
    "float as it is written. To compare it in OpenVINO: pip install 'effdet-deploy[openvino]'."
)
_NO_TENSORRT = (
    "TensorRT, which the file is laid out for, does not run it here: ONNX Runtime computes it, in "
    "float as it is written."
)


def verifying_engine(target: Target | None) -> tuple[str, str]:
    """Return the engine that a file for ``target`` is run in here, and why not in its own."""
    if target == "openvino":
        present = importlib.util.find_spec("openvino") is not None
        return ("openvino", "") if present else ("onnxruntime", _NO_OPENVINO)
    return "onnxruntime", _NO_TENSORRT if target == "tensorrt" else ""


def require_verifiable(options: ExportOptions) -> None:
    """Say before the work what the comparison at its end will lack.

    Warns:
        EffdetDeployWarning: the engine that the file is for is not installed.

    Raises:
        DeviceError: it would add the full range of INT8 wrongly on this processor.
    """
    if not options.verify or options.target not in ("openvino", "onnxruntime"):
        return
    engine, not_run = verifying_engine(options.target)
    if not_run:
        warnings.warn(not_run, EffdetDeployWarning, stacklevel=3)
    here = instruction_set(engine)
    if options.int8_range == "full" and engine == options.target and not is_exact(here):
        raise DeviceError(
            f"--int8-range full needs a processor with VNNI to be compared on, and {engine} has "
            f"{here} here.",
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
    """Compare the file at ``path`` with eager PyTorch, on the CPU, in the engine that it is for.

    That is ONNX Runtime, which computes a file for TensorRT in float as it is written, or OpenVINO
    where it is installed.
    """
    engine, not_run = verifying_engine(spec.precision.target)
    with contextlib.ExitStack() as stack:
        candidate = open_export(path, spec, stack, backend=engine, device="cpu")
        report = verify(candidate, reference, images, tolerance)
    return dataclasses.replace(report, computed_by=describe_kernels(engine), not_run=not_run)
