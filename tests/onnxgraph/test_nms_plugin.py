"""``--nms plugin``: TensorRT's plugin ends the graph, gives its documented results, or is refused.

Only TensorRT can run the plugin. Here ``tests/efficient_nms.py`` computes its results.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from effdet_deploy.artifact.modelfile import read_spec
from effdet_deploy.artifact.spec import DETECTION_OUTPUTS, INPUT_NAME, BatchSpec
from effdet_deploy.artifact.tensors import spec_tensors
from effdet_deploy.detection.pictures import verification_images
from effdet_deploy.errors import ModelFileError, UsageError
from effdet_deploy.exporters import ExportOptions, export
from effdet_deploy.exporters.build_options import BuildOptions
from effdet_deploy.exporters.tensorrt import engine as building
from effdet_deploy.exporters.tensorrt.engine import build_engine
from effdet_deploy.onnxgraph.nms_plugin import NOT_RUN, PLUGIN, attach_plugin
from effdet_deploy.onnxgraph.raw_heads import add_head_outputs
from effdet_deploy.preflight import check_model
from effdet_deploy.pytorch.graph.pipeline import Postprocess
from effdet_deploy.runtimes import load_runtime
from effdet_deploy.synthetic import structured_pictures
from tests.efficient_nms import attributes_of, plugin_node, run_emulated
from tests.networks import conditioned

SIDE = 128
PICTURES = 2
BOX_TOLERANCE_PX = 1e-3
"""How much float32 rounding moves boxes of some hundred pixels: the plugin and our graph decode
them with the same operations in another order."""
SCORE_TOLERANCE = 1e-6
RTX = BuildOptions(backend="tensorrt-rtx")
BOTH_EXPORTS = ["exported", pytest.param("halved", marks=pytest.mark.slow)]
PLUGIN_OPTIONS = {"nms": "plugin", "target": "tensorrt"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A lite0 for one or two pictures, boxes xyxy, verified as every export is."""
    path = tmp_path_factory.mktemp("plugin") / "lite0.onnx"
    options = ExportOptions(**PLUGIN_OPTIONS, batch=BatchSpec(1, 1, PICTURES))
    return export(conditioned("tf_efficientdet_lite0"), path, options)


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    """The same network in FP16 for one picture, with the input and boxes that DeepStream takes."""
    path = tmp_path_factory.mktemp("plugin") / "lite0.fp16.onnx"
    options = ExportOptions(
        **PLUGIN_OPTIONS, precision="fp16", box_format="yxyx", input_kind="float255", verify=False
    )
    return export(conditioned("tf_efficientdet_lite0"), path, options)


@pytest.fixture(scope="module")
def vertical_first(exported, tmp_path_factory):
    """The path of the same graph with boxes yxyx, the order that the plugin itself uses."""
    path = tmp_path_factory.mktemp("plugin") / "yxyx.onnx"
    return with_other_output(exported, path, box_format="yxyx")


def with_other_output(exported, path, **fields):
    """Write the same network to ``path``, with other ``fields`` of OutputSpec."""
    add_head_outputs(exported.path, path)
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = node.name.removesuffix("_output")  # a copy of the node will get that name
    onnx.save(model, path)
    output = dataclasses.replace(exported.spec.output, **fields)
    attach_plugin(path, read_spec(path, "onnx"), output)
    return path


@pytest.fixture
def pictures():
    return structured_pictures(PICTURES, SIDE, SIDE, seed=3)


def test_the_graph_ends_in_one_plugin_with_its_documented_attributes(exported):
    node = plugin_node(onnx.load(exported.path))
    assert node.op_type == PLUGIN
    assert attributes_of(node) == {
        "plugin_version": b"1",
        "score_threshold": pytest.approx(0.01),
        "iou_threshold": pytest.approx(0.5),
        "max_output_boxes": 100,
        "background_class": -1,
        "score_activation": 1,
        "class_agnostic": 0,
        "box_coding": 1,
    }


@pytest.mark.parametrize("artifact", BOTH_EXPORTS)
def test_boxes_logits_and_anchors_go_in_as_float32(artifact, request):
    model = onnx.load(request.getfixturevalue(artifact).path)
    node = plugin_node(model)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = {each.name: each.type.tensor_type for each in inferred.value_info}
    constants = {each.name: each for each in model.graph.initializer}
    boxes, logits, anchors = node.input
    assert {values[each].elem_type for each in (boxes, logits)} == {TensorProto.FLOAT}
    assert [values[each].shape.dim[2].dim_value for each in (boxes, logits)] == [4, 90]
    assert constants[anchors].data_type == TensorProto.FLOAT
    table = numpy_helper.to_array(constants[anchors])
    assert table.shape == (1, 3069, 4)
    # The first anchor of the finest level: stride 8, anchor scale 4.
    np.testing.assert_allclose(table[0, 0], [4, 4, 24, 24])


@pytest.mark.parametrize("artifact", BOTH_EXPORTS)
def test_the_outputs_are_those_of_the_contract(artifact, request):
    exported = request.getfixturevalue(artifact)
    model = onnx.load(exported.path)
    onnx.checker.check_model(model, full_check=True)
    dtypes = {TensorProto.INT32: np.int32, TensorProto.FLOAT: np.float32}
    _, wanted = spec_tensors(exported.spec)
    assert tuple(each.name for each in model.graph.output) == DETECTION_OUTPUTS
    for output, info in zip(model.graph.output, wanted, strict=True):
        tensor = output.type.tensor_type
        assert dtypes[tensor.elem_type] == info.dtype
        assert tuple(each.dim_value or None for each in tensor.shape.dim) == info.shape


def test_the_plugins_inputs_give_the_rows_of_the_static_nms(exported, pictures, tmp_path):
    rows = run_emulated(exported.path, pictures, tmp_path)
    expected = static_rows(exported, pictures, tmp_path)
    assert_same_rows(rows, expected)
    assert rows["num_detections"].min() > 20


def test_one_nms_for_all_classes_is_done_by_the_plugin(exported, pictures, tmp_path):
    path = with_other_output(exported, tmp_path / "agnostic.onnx", class_agnostic=True)
    node = plugin_node(onnx.load(path))
    assert attributes_of(node)["class_agnostic"] == 1
    spec = read_spec(path, "onnx")
    rows = run_emulated(path, pictures, tmp_path)
    expected = static_rows(dataclasses.replace(exported, spec=spec), pictures, tmp_path)
    assert_same_rows(rows, expected)
    per_class = run_emulated(exported.path, pictures, tmp_path)
    assert (rows["detection_boxes"] != per_class["detection_boxes"]).any()


def test_boxes_come_in_the_order_that_was_asked_for(exported, vertical_first, pictures, tmp_path):
    xyxy = run_emulated(exported.path, pictures, tmp_path)
    yxyx = run_emulated(vertical_first, pictures, tmp_path)
    boxes = xyxy.pop("detection_boxes"), yxyx.pop("detection_boxes")
    np.testing.assert_array_equal(boxes[0], boxes[1][..., [1, 0, 3, 2]])
    for name, value in xyxy.items():
        np.testing.assert_array_equal(value, yxyx[name])
    assert [each.op_type for each in onnx.load(vertical_first).graph.node][-1] == PLUGIN


@pytest.mark.slow
def test_the_plugins_inputs_in_fp16_give_the_rows_of_the_static_nms(halved, pictures, tmp_path):
    floats = np.ascontiguousarray(pictures[:1].transpose(0, 3, 1, 2)).astype(np.float32)
    rows = run_emulated(halved.path, floats, tmp_path)
    assert_same_rows(rows, static_rows(halved, floats, tmp_path))


def static_rows(exported, images, scratch):
    """Run the same heads through the modules that the static NMS is exported from."""
    heads = scratch / "static.heads.onnx"
    add_head_outputs(exported.path, heads)
    with_heads = load_runtime(heads, "onnxruntime", "cpu").run({INPUT_NAME: images})
    # The static NMS gets enough steps to be exact: this test is about the plugin's inputs.
    output = dataclasses.replace(exported.spec.output, nms="static", nms_steps=64)
    static = Postprocess(dataclasses.replace(exported.spec, output=output)).eval()
    with torch.no_grad():
        given = static(
            *(torch.from_numpy(with_heads[each]) for each in ("class_logits", "box_regression"))
        )
    return dict(zip(DETECTION_OUTPUTS, (each.numpy() for each in given), strict=True))


def ties_sorted(outputs):
    scores, classes, boxes = (
        outputs[f"detection_{each}"] for each in ("scores", "classes", "boxes")
    )
    order = np.lexsort((boxes[..., 0].round(), classes, -scores.round(5)))
    rows = {
        name: np.take_along_axis(value, order.reshape(*order.shape, *[1] * (value.ndim - 2)), 1)
        for name, value in outputs.items()
        if name != "num_detections"
    }
    return rows | {"num_detections": outputs["num_detections"]}


def assert_same_rows(found, expected):
    """Compare rows; rows with equal scores, which are frequent in FP16, may be in any order."""
    found, expected = ties_sorted(found), ties_sorted(expected)
    np.testing.assert_array_equal(found["num_detections"], expected["num_detections"])
    np.testing.assert_array_equal(found["detection_classes"], expected["detection_classes"])
    for name, tolerance in (
        ("detection_scores", SCORE_TOLERANCE),
        ("detection_boxes", BOX_TOLERANCE_PX),
    ):
        assert found[name].dtype == expected[name].dtype
        np.testing.assert_allclose(found[name], expected[name], atol=tolerance, rtol=0)


def test_the_export_says_what_was_compared_and_what_was_not_run(exported):
    assert exported.report.passed
    assert [each.name for each in exported.report.outputs] == ["class_logits", "box_regression"]
    assert NOT_RUN in exported.notes
    assert any("considers the 4096 best scores" in each for each in exported.notes)
    assert exported.spec.output.candidates == 4096


@pytest.mark.slow
def test_without_verification_no_comparison_is_claimed(halved):
    assert halved.report is None
    assert NOT_RUN not in halved.notes


def test_tensorrt_takes_the_plugin_and_rtx_does_not(exported):
    for target in ("tensorrt-10", "tensorrt-11"):
        assert check_model(exported.path, target) == ()
    found = check_model(exported.path, "tensorrt-rtx")
    assert [each.rule for each in found] == ["plugin"]
    assert "--nms static" in found[0].remedy


def test_a_build_with_rtx_is_refused_before_it_begins(exported, tmp_path):
    with pytest.raises(ModelFileError, match=f"does not have the plugin .*{PLUGIN}") as caught:
        build_engine(exported.path, tmp_path / "lite0.engine", RTX)
    assert "--nms static" in caught.value.remedy
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("backend", ["auto", "onnxruntime", "openvino"])
def test_other_runtimes_say_in_one_sentence_that_they_cannot_run_the_plugin(backend, exported):
    with pytest.raises(ModelFileError, match="ends in TensorRT's NMS plugin") as caught:
        load_runtime(exported.path, backend)
    assert caught.value.exit_code == 5
    assert "effdet-deploy build 'lite0.onnx'" in caught.value.remedy


def test_the_copy_that_ends_in_heads_says_so_and_runs(exported, tmp_path, pictures):
    copy = tmp_path / "heads.onnx"
    add_head_outputs(exported.path, copy)
    assert read_spec(copy, "onnx").output.nms == "none"
    outputs = load_runtime(copy, "onnxruntime", "cpu").run({INPUT_NAME: pictures})
    assert outputs["class_logits"].shape == (PICTURES, 3069, 90)


class Emulated:
    """A stand-in for the engine that TensorRT builds from the file; numpy computes its rows."""

    backend, device, precision = "tensorrt", "cuda:0", "fp32"

    def __init__(self, exported, scratch, shift=0.0, row=0):
        self.spec = exported.spec
        self.inputs, self.outputs = spec_tensors(exported.spec)
        self.sizes = []
        self._run = lambda images: run_emulated(exported.path, images, scratch)
        self._shift, self._row = shift, row

    def run(self, feeds):
        outputs = self._run(feeds[INPUT_NAME])
        self.sizes.append(len(feeds[INPUT_NAME]))
        outputs["detection_boxes"][self._row :] += np.float32(self._shift)
        return outputs

    def close(self):
        pass


@pytest.mark.parametrize(
    ("shift", "row", "status"),
    [(0.0, 0, "passed"), (9.0, 0, "failed"), (9.0, PICTURES - 1, "failed")],
)
def test_every_row_of_an_engine_is_compared_with_what_numpy_makes_of_the_heads(
    shift, row, status, exported, tmp_path, monkeypatch
):
    engine = Emulated(exported, tmp_path, shift, row)
    monkeypatch.setattr(
        "effdet_deploy.runtimes.tensorrt.engine_runtime.open_engine", lambda *_: engine
    )
    images = verification_images(exported.spec.input, None, exported.spec.batch)
    report = building._verify(tmp_path / "lite0.engine", exported.path, exported.spec, images)
    assert report.status == status
    assert set(engine.sizes) == set(report.batch_sizes) == {1, PICTURES}


REFUSED_OPTIONS = {
    "torchscript": ({"target": None}, ".torchscript", "which TorchScript cannot hold"),
    "no target": ({"target": None}, ".onnx", "no --target was given"),
    "another target": ({"target": "openvino"}, ".onnx", "--target openvino was given"),
    "RTX": ({"target": None, "build": RTX}, ".engine", "TensorRT-RTX does not have"),
}


@pytest.mark.parametrize("case", REFUSED_OPTIONS)
def test_the_plugin_is_refused_where_it_cannot_be_used(case):
    fields, suffix, words = REFUSED_OPTIONS[case]
    with pytest.raises(UsageError, match=words) as caught:
        ExportOptions(**(PLUGIN_OPTIONS | fields)).require_fits(suffix)
    assert "--nms static" in caught.value.remedy


@pytest.mark.parametrize("fields", [{"candidates": 500}, {"max_detections": 5000}])
def test_options_that_the_plugin_has_no_attribute_for_are_refused(fields):
    with pytest.raises(UsageError, match="4096"):
        ExportOptions(**PLUGIN_OPTIONS, **fields)


def test_more_rows_than_the_default_candidates_are_taken():
    assert ExportOptions(**PLUGIN_OPTIONS, max_detections=2000).max_detections == 2000
