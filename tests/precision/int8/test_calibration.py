from __future__ import annotations

import numpy as np
import onnx
import pytest
from PIL import Image

from effdet_deploy.errors import DataError
from effdet_deploy.onnxgraph.running import graph_inputs
from effdet_deploy.precision.int8 import calibration
from effdet_deploy.precision.int8.calibration import (
    BINS,
    MAX_IMAGES,
    activations,
    calibration_images,
    calibration_pictures,
    collect,
)
from effdet_deploy.synthetic import structured_pictures
from tests.evaluation.sets import write_set
from tests.precision.tiny_network import CHANNELS, SIDE, network_spec, tiny_network

VALUES = ["backbone.bn1.mul", "fpn.cell.0.add"]
BATCHES = list(graph_inputs(structured_pictures(3, SIDE, SIDE, 5), network_spec()))


@pytest.fixture(scope="module")
def model():
    return tiny_network()


@pytest.fixture(scope="module")
def maps(model):
    """All values that the tensors VALUES have on all pictures."""
    runs = list(activations(model, VALUES, BATCHES))
    return {value: np.stack([run[value] for run in runs]) for value in VALUES}


def test_histograms_count_every_value_between_the_extremes(model, maps):
    for value, found in collect(model, VALUES, BATCHES).items():
        assert found.counts.sum() == maps[value].size
        assert found.low == pytest.approx(maps[value].min())
        assert found.high == pytest.approx(maps[value].max())


def test_histograms_are_those_of_all_pictures_together(model, maps):
    found = collect(model, VALUES[:1], BATCHES)[VALUES[0]]
    exact, _ = np.histogram(maps[VALUES[0]], BINS, (found.low, found.high))
    np.testing.assert_array_equal(found.counts, exact)


def test_memory_is_bounded_by_running_in_portions(model, maps, monkeypatch):
    monkeypatch.setattr(calibration, "_ELEMENTS_HELD", 1)
    runs = list(activations(model, VALUES, BATCHES))
    assert [list(run) for run in runs] == [[VALUES[0]]] * 3 + [[VALUES[1]]] * 3
    np.testing.assert_array_equal(runs[3][VALUES[1]], maps[VALUES[1]][0])
    assert runs[0][VALUES[0]].shape[1] == CHANNELS


def test_pictures_are_taken_evenly_spread_if_there_are_many(tmp_path):
    for index in range(2 * MAX_IMAGES):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / f"{index:03d}.png")
    chosen = calibration_pictures(tmp_path)
    assert len(chosen) == MAX_IMAGES
    assert list(chosen.names[:2]) == ["000.png", "002.png"]


def test_pictures_are_letterboxed_to_the_network(tmp_path):
    for index in range(8):
        Image.new("RGB", (40, 20), (255, 0, 0)).save(tmp_path / f"{index}.png")
    images = calibration_images(tmp_path, network_spec().input)
    assert {image.shape for image in images} == {(SIDE, SIDE, 3)}
    assert tuple(images[0][-1, -1]) == network_spec().input.fill


def test_coco_annotations_name_the_pictures_too(tmp_path):
    annotations = write_set(tmp_path / "set", images=9)
    assert len(calibration_pictures(annotations)) == 9


def test_a_network_that_overflows_is_named(model):
    overflowing = onnx.ModelProto()
    overflowing.CopyFrom(model)
    conv = next(each for each in overflowing.graph.node if each.op_type == "Conv")
    weight = next(each for each in overflowing.graph.initializer if each.name == conv.input[1])
    weight.CopyFrom(
        onnx.numpy_helper.from_array(
            np.full(list(weight.dims), np.finfo(np.float32).max), weight.name
        )
    )
    with pytest.raises(DataError, match=f"'{VALUES[0]}' has NaN or infinite"):
        collect(overflowing, VALUES[:1], BATCHES)
