"""Preflight finds nothing in our own exports (for D0 see tests/exporters/test_onnx.py)."""

from __future__ import annotations

import pytest

from effdet_deploy.exporters import ExportOptions, export
from effdet_deploy.preflight import check_model, target_names

pytestmark = pytest.mark.slow
SMALL = {"weights": "random", "image_size": (128, 128), "verify": False}
EXPORTS = {
    "lite0": ("lite0", ExportOptions(**SMALL)),
    "lite0, raw heads of float pictures": (
        "lite0",
        ExportOptions(**SMALL, nms="none", input_kind="float255", channel_order="bgr"),
    ),
    "lite0 for DeepStream": (
        "lite0",
        ExportOptions(**SMALL, target="deepstream", frame_size=(720, 1280), precision="fp16"),
    ),
}


@pytest.fixture(scope="module", params=EXPORTS)
def exported(request, tmp_path_factory):
    variant, options = EXPORTS[request.param]
    return export(variant, tmp_path_factory.mktemp("own") / "model.onnx", options).path


@pytest.mark.parametrize("target", target_names())
def test_nothing_is_found_in_our_own_export(exported, target):
    assert check_model(exported, target) == ()


def test_onnxs_own_nms_is_a_finding_for_rtx_and_taken_by_the_others(tmp_path):
    options = ExportOptions(**SMALL, nms="onnx")
    path = export("lite0", tmp_path / "model.onnx", options).path
    assert check_model(path, "tensorrt-10") == check_model(path, "tensorrt-11") == ()
    (found,) = check_model(path, "tensorrt-rtx")
    assert "--nms static" in found.remedy
