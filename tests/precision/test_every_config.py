"""NVIDIA's builder on whole detectors: FP16 of every config, INT8 of the common ones."""

from __future__ import annotations

import dataclasses

import pytest
from PIL import Image

from effdet_deploy.pictures import structured_pictures
from effdet_deploy.spec import BatchSpec, PrecisionSpec
from tests.precision.rtx import Build

torch = pytest.importorskip("torch")

from effdet_deploy.exporters.lowering import lower_precision  # noqa: E402
from effdet_deploy.exporters.onnx import write_graph  # noqa: E402
from effdet_deploy.exporters.options import ExportOptions  # noqa: E402
from effdet_deploy.exporters.source import load_source, specification_of  # noqa: E402
from effdet_deploy.model import list_models  # noqa: E402

pytestmark = pytest.mark.slow

SIDE = 128
INT8 = [
    *(f"tf_efficientdet_d{index}" for index in range(5)),
    *(f"tf_efficientdet_lite{index}" for index in range(5)),
    "efficientdet_q0",
]


def smallest_side(name: str) -> int:
    return 256 if name == "tf_efficientdet_d7x" else SIDE


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for index, pixels in enumerate(structured_pictures(8, SIDE, SIDE, 3)):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def quiet(_stage):
    pass


def built(name, folder, precision, **fields):
    """Export ``name`` with random weights in a precision for TensorRT, and build it."""
    side = smallest_side(name)
    options = ExportOptions(
        weights="random",
        image_size=(side, side),
        precision=precision,
        target="tensorrt",
        candidates=200,
        **fields,
    )
    source = load_source(name, options, quiet)
    spec = dataclasses.replace(
        specification_of(source, options),
        precision=PrecisionSpec(precision, "tensorrt"),
        batch=BatchSpec(),
    )
    path = folder / "model.onnx"
    spec, _ = write_graph(source.model, spec, options.opset, path, quiet)
    spec, _ = lower_precision(path, spec, options, quiet)
    return spec, Build(path.read_bytes())


@pytest.mark.parametrize("name", list_models())
def test_fp16_builds_with_every_convolution_in_half_but_those_kept(name, tmp_path):
    spec, build = built(name, tmp_path, "fp16")
    assert build.errors == []
    assert build.engine is not None
    floats = {c for c, kind in build.inputs_of_convolutions().items() if kind == "Float"}
    assert floats <= set(spec.precision.kept)


@pytest.mark.parametrize("name", INT8)
def test_int8_builds_with_the_chosen_convolutions_in_int8_and_none_in_float(
    name, tmp_path, pictures, monkeypatch
):
    monkeypatch.setenv("EFFDET_DEPLOY_CACHE", str(tmp_path / "cache"))
    spec, build = built(name, tmp_path, "int8", calibration=pictures)
    assert build.errors == []
    types = build.inputs_of_convolutions()
    kept = set(spec.precision.kept)
    assert {c for c, kind in types.items() if kind == "Int8"} == types.keys() - kept
    assert {c for c, kind in types.items() if kind == "Float"} <= kept
