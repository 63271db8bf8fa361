"""TensorRT-RTX builds every named configuration in FP32 and FP16, fixed and ranged."""

from __future__ import annotations

import pytest

from effdet_deploy.exporters import ExportOptions, export
from effdet_deploy.exporters.tensorrt.options import BuildOptions
from effdet_deploy.model import create_model, list_models
from effdet_deploy.spec import BatchSpec

RTX = BuildOptions(backend="tensorrt-rtx")


def smallest_side(name: str) -> int:
    return 2 ** create_model(name).config.max_level


@pytest.mark.slow
@pytest.mark.parametrize("batch", [BatchSpec(), BatchSpec(1, 2, 4)], ids=["fixed", "ranged"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", list_models())
def test_rtx_builds_it(name, precision, batch, tmp_path, record_property):
    side = smallest_side(name)
    options = ExportOptions(
        weights="random",
        image_size=(side, side),
        precision=precision,
        batch=batch,
        verify=False,
        build=RTX,
    )

    artifact = export(name, tmp_path / "model.engine", options)

    record_property("plan_bytes", artifact.size)
    assert artifact.spec.precision.kind == precision
    assert artifact.spec.batch == batch
