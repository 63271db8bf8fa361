"""All 47 configurations at a small size: verified in FP32, built by NVIDIA in every precision.

Slow: `make test-all` runs it. With `--engine-table FILE` every build becomes a line of that file,
which is how the table of docs/tensorrt.md is made; `--fp16-table FILE` does the same for the costs
of FP16 in docs/verification.md.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from effdet_deploy.artifact.spec import BatchSpec, PrecisionSpec
from effdet_deploy.exporters import ExportOptions
from effdet_deploy.exporters.build_options import BuildOptions
from effdet_deploy.exporters.lowering import lower_precision
from effdet_deploy.exporters.material import read_material
from effdet_deploy.exporters.source import load_source
from effdet_deploy.exporters.tensorrt.engine import build_engine
from effdet_deploy.progress import silent
from effdet_deploy.pytorch.network import list_models
from effdet_deploy.synthetic import structured_pictures
from tests.exporters.every_config import (
    assert_int8_is_portable,
    assert_layers_agree,
    assert_passed,
    export_graph,
    smallest_side,
    verified,
)
from tests.precision.rtx import Build

if TYPE_CHECKING:
    from collections.abc import Iterator

    from effdet_deploy.artifact.spec import DetectorSpec, Precision
    from effdet_deploy.exporters.source import Source

pytestmark = pytest.mark.slow

RTX = BuildOptions(backend="tensorrt-rtx")
BATCHES = {"fixed": BatchSpec(), "ranged": BatchSpec(1, 2, 4)}
CALIBRATION_PICTURES = 8
FP16_PICTURES = 4
LEAST_FP16_DB = 40.0
"""The least signal-to-noise ratio of random weights in FP16; D7x's box codes have 42 dB."""
INT8 = [
    *(f"tf_efficientdet_d{index}" for index in range(5)),
    *(f"tf_efficientdet_lite{index}" for index in range(5)),
    "efficientdet_q0",
]


@dataclass(frozen=True)
class Exported:
    """One configuration's FP32 graphs for one image and for a range of batches, made on demand."""

    name: str
    source: Source
    folder: Path
    _made: dict[str, tuple[Path, DetectorSpec]] = field(default_factory=dict)

    def graph(self, batch: str) -> tuple[Path, DetectorSpec]:
        if batch not in self._made:
            options = options_for(self.name, batch=BATCHES[batch])
            self._made[batch] = export_graph(self.source, options, self.folder / batch)
        return self._made[batch]

    def lowered(
        self, batch: str, precision: Precision, **fields: object
    ) -> tuple[Path, DetectorSpec]:
        """Return a copy of a graph in another precision, laid out for TensorRT."""
        key = f"{batch}-{precision}"
        if key not in self._made:
            original, spec = self.graph(batch)
            path = Path(shutil.copyfile(original, self.folder / f"{key}.onnx"))
            options = options_for(self.name, precision=precision, target="tensorrt", **fields)
            spec = dataclasses.replace(spec, precision=PrecisionSpec(precision, "tensorrt"))
            self._made[key] = (
                path,
                lower_precision(path, spec, options, read_material(options), silent)[0],
            )
        return self._made[key]


def options_for(name: str, **fields: object) -> ExportOptions:
    side = smallest_side(name)
    return ExportOptions(weights="random", image_size=(side, side), **fields)


@pytest.fixture(scope="module", params=list_models())
def exported(request, tmp_path_factory) -> Iterator[Exported]:
    folder = tmp_path_factory.mktemp("graphs")
    name = request.param
    yield Exported(name, load_source(name, options_for(name), silent), folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index, pixels in enumerate(structured_pictures(CALIBRATION_PICTURES, 128, 128, 3)):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_it_detects_what_eager_pytorch_detects(exported):
    path, spec = exported.graph("fixed")
    assert_passed(verified(path, spec, exported.source))


def test_its_layers_are_those_of_eager_pytorch(exported):
    assert_layers_agree(exported.graph("fixed")[0], exported.source.model)


@pytest.mark.parametrize("target", ["tensorrt", "openvino"])
def test_its_fp16_costs_what_fp16_costs_the_network(exported, target, fp16_table):
    path, spec = exported.lowered("ranged", "fp16")
    precision = dataclasses.replace(spec.precision, target=target)
    spec = dataclasses.replace(spec, precision=precision)
    report = verified(path, spec, exported.source, FP16_PICTURES)
    assert report.passed, report.to_dict()
    assert report.detections is not None
    fp16_table(
        name=exported.name,
        target=target,
        alone={each.name: each.fp16_snr_db for each in report.outputs},
        file={each.name: each.errors.snr_db for each in report.outputs},
        kept_alone=report.detections.fp16_share,
        kept=report.detections.plain_share,
    )
    assert report.batch_sizes == (4, 1)
    for each in report.outputs:
        assert each.worst_level.used < 1
        assert each.fp16_snr_db >= LEAST_FP16_DB


def test_its_int8_is_portable(exported, tmp_path):
    assert_int8_is_portable(exported.graph("fixed")[0], tmp_path)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_rtx_builds_it(exported, precision, batch, tmp_path, engine_table):
    if precision == "fp32":
        path, spec = exported.graph(batch)
    else:
        path, spec = exported.lowered(batch, precision)
    begun = time.monotonic()
    artifact = build_engine(path, tmp_path / "model.engine", RTX)
    seconds = time.monotonic() - begun
    assert artifact.spec.engine is not None
    assert artifact.spec.precision == spec.precision
    assert artifact.spec.batch == BATCHES[batch]
    engine_table(
        name=exported.name, precision=precision, batch=batch, seconds=seconds, size=artifact.size
    )


def test_fp16_leaves_in_float_only_the_convolutions_that_the_spec_names(exported):
    path, spec = exported.lowered("fixed", "fp16")
    build = Build(path.read_bytes())
    assert build.errors == []
    assert build.engine is not None
    types = build.inputs_of_convolutions()
    assert "Half" in types.values()
    assert {name for name, kind in types.items() if kind == "Float"} <= set(spec.precision.kept)


def test_int8_computes_the_chosen_convolutions_in_int8_and_none_in_float(
    exported, pictures, tmp_path, monkeypatch, engine_table
):
    if exported.name not in INT8:
        pytest.skip("INT8 is tested with D0-D4, lite0-lite4 and q0; others would show the same")
    monkeypatch.setenv("EFFDET_DEPLOY_CACHE", str(tmp_path / "cache"))
    path, spec = exported.lowered("fixed", "int8", calibration=pictures)
    begun = time.monotonic()
    build = Build(path.read_bytes())
    seconds = time.monotonic() - begun
    assert build.errors == []
    assert build.engine is not None
    engine_table(
        name=exported.name,
        precision="int8",
        batch="fixed",
        seconds=seconds,
        size=build.engine.nbytes,
    )
    types = build.inputs_of_convolutions()
    kept = set(spec.precision.kept)
    assert {name for name, kind in types.items() if kind == "Int8"} == types.keys() - kept
    assert {name for name, kind in types.items() if kind == "Float"} <= kept
