"""NVIDIA's own builder takes files with 5000 candidates, although its TopK takes only 3840."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.exporters import ExportOptions, export
from effdet_deploy.exporters.build_options import BuildOptions
from effdet_deploy.exporters.tensorrt.engine import build_engine
from effdet_deploy.preflight import check_model, target_names

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("tensorrt_rtx_bindings")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("fields", "operator"),
    [
        ({}, "Loop"),
        ({"batch": BatchSpec(1, 1, 3)}, "Loop"),
        ({"target": "tensorrt"}, "GatherND"),
        ({"target": "tensorrt", "precision": "fp16"}, "GatherND"),
        ({"target": "tensorrt", "batch": BatchSpec(1, 1, 3), "precision": "fp16"}, "GatherND"),
    ],
)
def test_nvidias_builder_takes_5000_candidates(tmp_path: Path, fields: dict, operator: str) -> None:
    """NMS is written as a loop or as a sequence of steps; the file is in float32 or float16."""
    options = ExportOptions(weights="random", image_size=(192, 192), candidates=5000, **fields)
    artifact = export("lite0", tmp_path / "model.onnx", options)
    assert artifact.report is not None
    # With random weights, too many scores may lie so near the threshold that FP16 moves them.
    assert artifact.report.deliverable
    assert artifact.spec.operators[operator]
    assert artifact.spec.operators["TopK"] == 4
    findings = {name: check_model(artifact.path, name) for name in target_names()}
    assert not any(findings.values()), findings
    engine = tmp_path / "model.engine"
    build_engine(artifact.path, engine, BuildOptions(backend="tensorrt-rtx"))
    assert engine.stat().st_size > 0
