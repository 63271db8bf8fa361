"""More candidates than a picture has anchors, or than one TopK of TensorRT takes."""

from __future__ import annotations

import pytest
import torch

from effdet_deploy.artifact.classes import class_specs
from effdet_deploy.artifact.spec import OutputSpec, Target
from effdet_deploy.errors import UsageError
from effdet_deploy.exporters import ExportOptions
from effdet_deploy.exporters.option_text import parse_candidates
from effdet_deploy.exporters.source import describe
from effdet_deploy.pytorch.graph import create_pipeline, fold_for_inference
from tests.networks import conditioned

ANCHORS_AT_128 = 9 * (16 * 16 + 8 * 8 + 4 * 4 + 2 * 2 + 1)


def test_candidates_are_clamped_to_the_number_of_pairs_and_recorded() -> None:
    network = conditioned("tf_efficientdet_lite0", num_classes=1)
    spec = describe(network.config, network.config, class_specs(1), OutputSpec(candidates=5000))
    assert spec.output.candidates == ANCHORS_AT_128
    pipeline = create_pipeline(fold_for_inference(network, spec.input), spec).eval()
    with torch.no_grad():
        count, boxes, _, _ = pipeline(torch.randint(0, 255, (1, 128, 128, 3), dtype=torch.uint8))
    assert boxes.shape == (1, 100, 4)
    assert 0 <= count.item() <= 100


def test_detections_are_clamped_with_the_candidates() -> None:
    network = conditioned("tf_efficientdet_lite0", num_classes=1)
    asked = OutputSpec(candidates=5000, max_detections=4000)
    spec = describe(network.config, network.config, class_specs(1), asked)
    assert spec.output.max_detections == ANCHORS_AT_128


@pytest.mark.parametrize(("suffix", "target"), [(".onnx", "tensorrt"), (".engine", None)])
def test_more_candidates_than_one_topk_of_tensorrt_takes_are_accepted(
    suffix: str, target: Target | None
) -> None:
    """The graph chooses candidates in two rounds; tests/pytorch/graph has tests of that."""
    ExportOptions(candidates=5000, precision="fp16", target=target).require_fits(suffix)


@pytest.mark.parametrize("text", ["", "0", "-1", "1e3", "all", "²"])
def test_candidates_are_auto_or_a_number(text: str) -> None:
    with pytest.raises(UsageError, match="auto or a whole number"):
        parse_candidates(text)
