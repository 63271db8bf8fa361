"""A few named configurations stand for all; their exported files detect what PyTorch detects.

`make test` exports a small set that covers every kind of pyramid and head; `make test-all` exports
all 47 (test_every_config.py), and the scaled variants also at their own size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from effdet_deploy.exporters import ExportOptions, export
from effdet_deploy.exporters.source import load_source
from effdet_deploy.progress import silent
from effdet_deploy.pytorch.network import resolve_name
from tests.exporters.every_config import (
    assert_fp16_costs_its_own,
    assert_int8_is_portable,
    assert_layers_agree,
    assert_passed,
    export_graph,
    smallest_side,
    verified,
)
from tests.networks import COVER

if TYPE_CHECKING:
    from pathlib import Path

TESTED_ELSEWHERE = ("tf_efficientdet_d0", "tf_efficientdet_lite0")
"""Configurations that other tests of this folder export and verify."""
OWN_SIZE = ("d0", "d1", "d2", "d3", "d4", "lite0", "lite1", "lite2", "lite3", "lite4")
OWN_SIZE_PICTURES = 4
"""The number of pictures: at a variant's own size, every picture has a hundred detections."""


@pytest.mark.parametrize("name", [each for each in COVER if each not in TESTED_ELSEWHERE])
def test_a_configuration_passes_in_fp32_and_fp16_and_its_int8_is_portable(
    name: str, tmp_path: Path
) -> None:
    side = smallest_side(name)
    options = ExportOptions(weights="random", image_size=(side, side))
    source = load_source(name, options, silent)
    path, spec = export_graph(source, options, tmp_path / "graph")
    assert_passed(verified(path, spec, source))
    assert_layers_agree(path, source.model)
    assert_fp16_costs_its_own(path, spec, source)
    assert_int8_is_portable(path, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN_SIZE)
def test_a_scaled_variant_passes_verification_at_its_own_size(name: str, tmp_path: Path) -> None:
    options = ExportOptions(weights="random")
    source = load_source(resolve_name(name), options, silent)
    path, spec = export_graph(source, options, tmp_path / "graph")
    report = verified(path, spec, source, OWN_SIZE_PICTURES)
    assert report.passed, report.to_dict()


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("name", ["d2", "d4", "d6", "lite2", "lite4"])
def test_fp16_of_random_weights_passes_verification_at_the_variants_own_size(
    name: str, tmp_path: Path
) -> None:
    options = ExportOptions(weights="random", precision="fp16", target="tensorrt")
    report = export(name, tmp_path / "model.onnx", options).report
    assert report is not None
    assert report.passed
    assert all(len(each.levels) == len(report.outputs[0].levels) for each in report.outputs)
