"""Export EfficientDet checkpoints as one verified graph, from uint8 image to boxes, and run them.

The names below are imported when first used, so that running a model does not need torch and does
not wait for its import.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from effdet_deploy._version import __version__

if TYPE_CHECKING:
    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.detection.detections import Detections
    from effdet_deploy.detection.detector import Detector, load
    from effdet_deploy.exporters import export
    from effdet_deploy.exporters.options import ExportOptions
    from effdet_deploy.parity import compare

__all__ = [
    "Detections",
    "Detector",
    "DetectorSpec",
    "ExportOptions",
    "__version__",
    "compare",
    "export",
    "load",
]

# ONNX Runtime reads this variable when it is imported. Without it, every run leaves an identifier
# in ~/.cache/Microsoft and a file in the temporary folder, and reports the session to Microsoft.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Detections": "effdet_deploy.detection.detections",
    "Detector": "effdet_deploy.detection.detector",
    "DetectorSpec": "effdet_deploy.artifact.spec",
    "ExportOptions": "effdet_deploy.exporters.options",
    "compare": "effdet_deploy.parity",
    "export": "effdet_deploy.exporters",
    "load": "effdet_deploy.detection.detector",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
