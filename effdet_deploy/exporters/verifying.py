"""Which engine on this machine an exported file is compared in."""

from __future__ import annotations

import importlib.util
import warnings
from typing import TYPE_CHECKING

from effdet_deploy.errors import DeviceError, EffdetDeployWarning
from effdet_deploy.runtimes.instructions import instruction_set, is_exact

if TYPE_CHECKING:
    from effdet_deploy.artifact.spec import Target
    from effdet_deploy.exporters.options import ExportOptions

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
