"""libeffdet gives the rows (detections) of ``effdet_deploy.load(...)`` to the last bit.

That holds for every kind of input.
"""

from __future__ import annotations

import numpy as np
import pytest

import effdet_deploy
from tests.native.building import onnxruntime_library
from tests.native.models import make_spec, write_model

SIZES = [(150, 200), (301, 97), (128, 160), (40, 31), (1, 1), (3, 700)]
SCORE_TOLERANCE, BOX_TOLERANCE_PX = 1e-6, 1e-3
"""The tolerances for raw heads, whose decoding uses exp: numpy's and the C library's exp differ."""


def pictures():
    random = np.random.default_rng(2)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.fixture
def both(testing_library, binding, has_onnxruntime, tmp_path):
    """Return the rows of libeffdet and those of the package, picture by picture."""

    def run(spec, images, threshold=None):
        model = write_model(tmp_path / "tiny.onnx", spec)
        native = binding.Detector(
            str(testing_library), str(model), "onnxruntime", str(onnxruntime_library())
        )
        found = native.detect([binding.view(each) for each in images], threshold or 0.0)
        native.close()
        with effdet_deploy.load(model, "onnxruntime", "cpu") as detector:
            expected = detector.detect(images, threshold)
        return found, expected

    return run


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for rows, each in zip(found, expected, strict=True):
        assert [row.label for row in rows] == each.labels.tolist()
        assert [row.score for row in rows] == each.scores.tolist()
        assert [list(row.box) for row in rows] == each.boxes.tolist()


@pytest.mark.parametrize("kind", ["uint8", "float255", "normalized"])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("box_format", ["xyxy", "yxyx"])
def test_rows_are_equal_for_every_input_and_box_order(both, kind, order, box_format):
    spec = make_spec(kind=kind, channel_order=order, output={"box_format": box_format})
    found, expected = both(spec, pictures())
    assert sum(len(each) for each in found) > len(SIZES)
    assert_equal(found, expected)


@pytest.mark.parametrize("rule", ["letterbox", "center", "stretch"])
@pytest.mark.parametrize("interpolation", ["antialias", "linear"])
def test_rows_are_equal_for_every_resize_rule_and_filter(both, rule, interpolation):
    spec = make_spec(resize=rule, interpolation=interpolation, trained_on="bgr")
    found, expected = both(spec, pictures())
    assert sum(len(each) for each in found) > len(SIZES)
    assert_equal(found, expected)


@pytest.mark.parametrize("channels", [1, 4])
def test_networks_of_gray_and_rgba_pictures_are_refused_by_name(
    testing_library, binding, has_onnxruntime, tmp_path, channels
):
    values = {"mean": [0.5] * channels, "std": [0.5] * channels, "fill": [0] * channels}
    model = write_model(tmp_path / "tiny.onnx", make_spec(**values))
    with pytest.raises(binding.Error, match="gray or RGBA"):
        binding.Detector(
            str(testing_library), str(model), "onnxruntime", str(onnxruntime_library())
        )


@pytest.mark.parametrize("batch", [(1, 4), (2, 2), (3, 8)])
def test_rows_are_equal_for_fixed_and_ranged_batches(both, batch):
    assert_equal(*both(make_spec(batch=batch), pictures()))


def test_rows_are_equal_above_a_threshold(both):
    found, expected = both(make_spec(), pictures(), threshold=0.3)
    assert_equal(found, expected)


def test_raw_heads_are_finished_as_the_package_does(both):
    spec = make_spec(output={"nms": "none", "score_threshold": 0.2, "max_detections": 40})
    found, expected = both(spec, pictures())
    assert all(len(rows) > 10 for rows in found[:4])
    for rows, each in zip(found, expected, strict=True):
        assert [row.label for row in rows] == each.labels.tolist()
        np.testing.assert_allclose([row.score for row in rows], each.scores, atol=SCORE_TOLERANCE)
        boxes = np.array([row.box for row in rows], np.float32).reshape(-1, 4)
        np.testing.assert_allclose(boxes, each.boxes, atol=BOX_TOLERANCE_PX, rtol=1e-5)


def test_frames_of_the_source_size_go_in_as_they_are(
    testing_library, binding, has_onnxruntime, tmp_path
):
    spec = make_spec(source_size=[90, 120])
    model = write_model(tmp_path / "tiny.onnx", spec)
    native = binding.Detector(
        str(testing_library), str(model), "onnxruntime", str(onnxruntime_library())
    )
    frame = np.random.default_rng(3).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    rows = native.detect([binding.view(frame)])[0]
    # Boxes are in pixels of the frame already, and clipped to it.
    assert max(row.box[2] for row in rows) == 120
    assert (10.0, 20.0, 50.0, 60.0) in [row.box for row in rows]
    with pytest.raises(binding.Error, match="takes only 120x90"):
        native.detect([binding.view(frame[:-1])])


def test_a_model_for_deepstreams_frames_takes_no_other_size(
    testing_library, binding, has_onnxruntime, tmp_path
):
    model = write_model(tmp_path / "tiny.onnx", make_spec(kind="float255", frame_size=[90, 120]))
    native = binding.Detector(
        str(testing_library), str(model), "onnxruntime", str(onnxruntime_library())
    )
    frame = np.random.default_rng(3).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    assert native.detect([binding.view(frame)])[0]
    with pytest.raises(binding.Error, match="DeepStream's frames of 120x90"):
        native.detect([binding.view(frame[:-1])])


def test_a_graph_that_its_spec_does_not_describe_is_refused(
    testing_library, binding, has_onnxruntime, tmp_path
):
    import onnx

    path = write_model(tmp_path / "tiny.onnx", make_spec())
    model = onnx.load(path)
    spec = model.metadata_props[0].value
    model.metadata_props[0].value = spec.replace('"height": 128', '"height": 256')
    path.write_bytes(model.SerializeToString())
    with pytest.raises(binding.Error, match="does not fit its spec"):
        binding.Detector(str(testing_library), str(path), "onnxruntime", str(onnxruntime_library()))


@pytest.mark.parametrize("change", ["opset", "operator", "input"])
def test_the_reason_of_the_runtime_for_refusing_a_graph_is_quoted(
    testing_library, binding, has_onnxruntime, tmp_path, change
):
    import onnx

    path = write_model(tmp_path / "tiny.onnx", make_spec())
    model = onnx.load(path)
    if change == "opset":
        model.opset_import[0].version = 99
    elif change == "operator":
        model.graph.node[0].op_type = "Conjure"
    else:
        model.graph.node[1].input[0] = "nowhere"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(binding.Error, match=r"ONNX Runtime .* could not load") as caught:
        binding.Detector(str(testing_library), str(path), "onnxruntime", str(onnxruntime_library()))
    assert caught.value.status == 2
