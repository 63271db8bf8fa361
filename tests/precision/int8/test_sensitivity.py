"""The search for the groups of layers that INT8 harms most; they stay in higher precision."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from effdet_deploy.artifact.spec import ClassSpec
from effdet_deploy.errors import DataError, UnknownNameError, VerificationError
from effdet_deploy.evaluation.cocoset import read_coco
from effdet_deploy.onnxgraph.running import graph_inputs
from effdet_deploy.precision.int8.budget import BudgetedAccuracy
from effdet_deploy.precision.int8.quantizer import Quantizer, Recipe
from effdet_deploy.precision.int8.sensitivity import Journal, rank_groups, search
from effdet_deploy.precision.precisionfile import read_precision_file, write_precision_file
from effdet_deploy.synthetic import structured_pictures
from tests.evaluation.sets import CATEGORIES, write_set
from tests.onnx_models import NAMES
from tests.precision.tiny_network import SIDE, network_spec, tiny_network

BATCHES = list(graph_inputs(structured_pictures(4, SIDE, SIDE, 5), network_spec()))
MAP_WITHOUT_INT8 = 0.6


@pytest.fixture(scope="module")
def quantizer(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return Quantizer(tiny_network(), BATCHES, "openvino", Recipe(), cache)


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal.json")


def quiet(_stage):
    pass


class Judge:
    """A stand-in for the mAP: it falls by a fixed amount per INT8 convolution of the class head."""

    def __init__(self, loss: float) -> None:
        self.loss = loss
        self.calls = 0

    def __call__(self, model) -> float:
        self.calls += 1
        weights = [t.name for t in model.graph.initializer if t.name.endswith("weight.int8")]
        return MAP_WITHOUT_INT8 - self.loss * sum("class_net" in name for name in weights)


def found(quantizer, journal, judge, budget=0.5):
    return search(quantizer, quantizer.default(), budget, judge, journal, quiet)


def test_every_group_is_ranked_by_its_noise_relative_to_its_work(quantizer, journal):
    losses = rank_groups(quantizer, quantizer.default(), journal, quiet)
    groups = {each.group for each in quantizer.convolutions if each.name in quantizer.default()}
    assert {each.group for each in losses} == groups
    assert all(each.noise > 0 for each in losses)
    prices = [each.price for each in losses]
    assert prices == sorted(prices, reverse=True)


def test_within_the_budget_everything_stays_int8_and_two_measurements_are_enough(
    quantizer, journal
):
    judge = Judge(loss=0.0)
    searched = found(quantizer, journal, judge)
    assert (searched.kept, searched.drop, searched.evaluations, judge.calls) == ((), 0.0, 2, 2)


def test_groups_that_break_the_budget_stay_in_higher_precision_and_the_drop_is_measured(
    quantizer, journal
):
    searched = found(quantizer, journal, Judge(loss=0.01))
    assert "class_net/dense" in searched.kept
    assert searched.drop <= 0.5
    assert 0 < searched.share < 1


def test_bisection_needs_few_measurements(quantizer, journal):
    judge = Judge(loss=0.01)
    searched = found(quantizer, journal, judge)
    assert judge.calls <= 2 + np.ceil(np.log2(len(searched.losses)))


def test_a_budget_that_cannot_be_met_is_an_error(quantizer, journal):
    def hopeless(model):
        quantized = any(t.name.endswith("weight.int8") for t in model.graph.initializer)
        return 0.1 if quantized else MAP_WITHOUT_INT8

    with pytest.raises(VerificationError, match=r"No INT8 graph stays within 0\.5 points"):
        found(quantizer, journal, hopeless)


def test_an_interrupted_search_goes_on_where_it_stopped(quantizer, tmp_path):
    path = tmp_path / "journal.json"
    first = found(quantizer, Journal(path), Judge(loss=0.01))
    judge = Judge(loss=0.01)
    assert found(quantizer, Journal(path), judge) == first
    assert judge.calls == 0


def test_a_damaged_journal_is_begun_again(tmp_path):
    path = tmp_path / "journal.json"
    path.write_text("{")
    assert Journal(path).recall("x", lambda: 2.0) == 2.0
    assert json.loads(path.read_text()) == {"x": 2.0}


def test_a_precision_file_can_be_written_edited_and_read(quantizer, tmp_path):
    path = tmp_path / "precision.json"
    write_precision_file(path, quantizer.convolutions, quantizer.default())
    assert (
        read_precision_file(path, quantizer.convolutions, quantizer.layout) == quantizer.default()
    )
    document = json.loads(path.read_text())
    document["groups"]["box_net/dense"] = "higher"
    path.write_text(json.dumps(document))
    names = read_precision_file(path, quantizer.convolutions, quantizer.layout)
    assert set(quantizer.default()) - set(names) == {
        name for name in quantizer.default() if name.startswith("box_net")
    }


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("{", DataError),
        ('{"groups": {"box_net/dense": "int4"}}', DataError),
        ("[]", DataError),
        ('{"groups": {"box_net/dense": ["int8"]}}', DataError),
        ('{"groups": ["box_net/dense"]}', DataError),
        ('{"groups": {"box_net/dens": "int8"}}', UnknownNameError),
    ],
)
def test_a_precision_file_of_another_form_is_refused(quantizer, tmp_path, content, error):
    path = tmp_path / "precision.json"
    path.write_text(content)
    with pytest.raises(error):
        read_precision_file(path, quantizer.convolutions, quantizer.layout)


@pytest.mark.parametrize("change", ["nothing", "labels", "threshold", "a picture", "the boxes"])
def test_a_measurement_is_recalled_only_for_the_same_set_and_labels(quantizer, tmp_path, change):
    annotations = write_set(tmp_path / "set", images=2)
    named = tuple(map(ClassSpec, NAMES, CATEGORIES))
    spec = dataclasses.replace(network_spec(), classes=named)
    known = BudgetedAccuracy(quantizer, read_coco(annotations), spec).journal
    known.recall("mAP of fp32", lambda: 0.5)
    if change == "labels":
        spec = dataclasses.replace(spec, classes=(*named[1:], named[0]))
    elif change == "threshold":
        output = dataclasses.replace(spec.output, iou_threshold=0.4)
        spec = dataclasses.replace(spec, output=output)
    elif change == "a picture":
        Image.new("RGB", (9, 9)).save(tmp_path / "set" / "images" / "001.png")
    elif change == "the boxes":
        document = json.loads(annotations.read_text())
        document["annotations"][0]["bbox"][2] += 1
        annotations.write_text(json.dumps(document))
    again = BudgetedAccuracy(quantizer, read_coco(annotations), spec).journal
    assert again.recall("mAP of fp32", lambda: 0.6) == (0.5 if change == "nothing" else 0.6)


def test_a_search_goes_on_if_the_journal_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("no folder")
    journal = Journal(tmp_path / "file" / "journal.json")
    assert journal.recall("a", lambda: 0.5) == journal.recall("a", lambda: 0.6) == 0.5


@pytest.mark.parametrize("content", ['{"a": null}', "[1]", "{", '{"a": "b"}'])
def test_a_damaged_journal_counts_as_missing(tmp_path, content):
    path = tmp_path / "journal.json"
    path.write_text(content)
    assert Journal(path).recall("a", lambda: 0.5) == 0.5
