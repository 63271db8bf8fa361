"""Faults that people really make, each planted into a healthy detector: compare must name it."""

from __future__ import annotations

import copy

import pytest
import torch

from effdet_deploy.diagnosis.comparing_files import compare_files
from effdet_deploy.diagnosis.locating import LEAST_FP32_SNR_DB, locate
from effdet_deploy.onnxgraph.layers import GraphLayers
from effdet_deploy.pytorch.eager_layers import EagerLayers
from tests.diagnosis import planted

# The least signal-to-noise ratio that float32 rounding leaves between ONNX Runtime and PyTorch.
SOUND_DB = 80.0


@pytest.fixture(scope="module")
def pictures(exported):
    from effdet_deploy.detection.pictures import verification_images

    return verification_images(GraphLayers(exported).spec.input)[:2]


def against_eager(path, network, pictures):
    graph = GraphLayers(path)
    eager = EagerLayers(network, graph.spec.input, graph.layers)
    return locate(graph.layers, graph, eager, pictures, LEAST_FP32_SNR_DB)


def compared(candidate, reference):
    (each,) = compare_files([candidate], str(reference), layers=True).examined
    return each


def test_every_layer_of_a_sound_export_agrees_with_eager_pytorch(exported, pictures):
    report = against_eager(exported, planted.network(), pictures)
    assert report.first is None
    assert report.symptom == ""
    assert min(each.snr_db for each in report.layers) > SOUND_DB


def test_nearly_every_module_of_the_network_is_compared_with_eager_pytorch(exported, pictures):
    report = against_eager(exported, planted.network(), pictures)
    assert report.unmatched == 0
    names = {each.name for each in report.layers}
    assert {"class_net.conv_rep.1.level.3.conv", "class_logits.reshape"} <= names
    assert {planted.STEM, planted.SCALED_LAYER, planted.CLIPPED_LAYER} <= names


def test_one_wrong_batchnorm_is_located(exported, pictures):
    network = copy.deepcopy(planted.network())
    norm = network.get_submodule(planted.WRONG_NORM)
    with torch.no_grad():
        norm.running_mean[5] += 2 * norm.running_var[5].sqrt()
    report = against_eager(exported, network, pictures)
    assert report.first.name == "fpn.cell.1.fnode.2.after_combine.conv.conv_pw.conv"
    assert "1 of 64 channels scaled and shifted" in report.symptom
    assert "another BatchNorm" in report.symptom


def test_one_wrong_batchnorm_of_a_head_is_located_at_its_level(exported, pictures):
    network = copy.deepcopy(planted.network())
    norm = network.get_submodule("class_net.bn_rep.1.3.bn")
    with torch.no_grad():
        norm.weight *= 2
    report = against_eager(exported, network, pictures)
    assert report.first.name == "class_net.conv_rep.1.level.3.conv"


def test_one_layers_scale_is_located(exported, tmp_path):
    each = compared(planted.plant_scale(exported, tmp_path / "scale.onnx"), exported)
    assert each.layers.first.name == planted.SCALED_LAYER
    assert each.layers.symptom == "is the reference's times 1.25"
    assert not each.passed


def test_one_clipped_range_is_located(exported, tmp_path):
    each = compared(planted.plant_clip(exported, tmp_path / "clip.onnx"), exported)
    assert each.layers.first.name == planted.CLIPPED_LAYER
    assert each.layers.symptom == "is the reference's clipped at 0.5 from above"


def test_swapped_colors_are_located_at_the_stem_and_named(exported, tmp_path):
    each = compared(planted.plant_bgr(exported, tmp_path / "bgr.onnx"), exported)
    assert each.layers.first.name == planted.STEM
    assert any("it takes BGR, but its spec says RGB" in cause for cause in each.causes)


def test_swapped_anchors_are_named(exported, tmp_path):
    each = compared(planted.plant_swapped_anchors(exported, tmp_path / "anchors.onnx"), exported)
    assert each.comparison.report.heads_match
    assert not each.passed
    assert any("the aspect ratios have the order 0, 2, 1" in cause for cause in each.causes)
    assert each.layers.first.name.startswith("postprocess.decode")


def test_anchors_swapped_in_the_box_head_are_located(exported, tmp_path):
    target = tmp_path / "predictions.onnx"
    each = compared(planted.plant_swapped_predictions(exported, target), exported)
    assert each.layers.first.name == planted.BOX_PREDICT
    assert "has 24 of 36 channels in another order" in each.layers.symptom


def test_a_sound_copy_passes_and_nothing_is_blamed(exported, tmp_path):
    copied = tmp_path / "copy.onnx"
    copied.write_bytes(exported.read_bytes())
    each = compared(copied, exported)
    assert each.passed
    assert each.layers.first is None
    assert each.causes == ()
    assert each.comparison.report.outputs[0].errors.largest == 0
