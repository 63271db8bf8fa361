"""Preflight: what TensorRT will refuse or change in an ONNX file, before anything is built."""

from __future__ import annotations

from effdet_deploy.preflight.check import check_model, require_fit, require_onnx
from effdet_deploy.preflight.finding import Finding
from effdet_deploy.preflight.tables import target_names, target_of

__all__ = ["Finding", "check_model", "require_fit", "require_onnx", "target_names", "target_of"]
