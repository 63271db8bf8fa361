"""Preflight: what a TensorRT will refuse or change in an ONNX file, before anything is built."""

from __future__ import annotations

from effdet_deploy.preflight.check import check_model, require_fit
from effdet_deploy.preflight.finding import Finding
from effdet_deploy.preflight.tables import target_names

__all__ = ["Finding", "check_model", "require_fit", "target_names"]
