"""A few named configurations stand for all: exported, loaded, detecting what PyTorch detects.

`make test` does the smallest set that covers every kind of part; `make test-all` does all 47
(test_every_config.py), and the scaled ones at their own size.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from effdet_deploy.exporters import ExportOptions
from effdet_deploy.exporters.artifact import silent
from effdet_deploy.exporters.source import load_source
from effdet_deploy.model import get_config, list_models, resolve_name
from tests.exporters.every_config import assert_passed, export_graph, smallest_side, verified

if TYPE_CHECKING:
    from pathlib import Path

    from effdet_deploy.model.config import ModelConfig

COVER = (
    "tf_efficientdet_d0",
    "tf_efficientdet_d6",
    "tf_efficientdet_lite0",
    "efficientdet_q0",
    "efficientdet_es",
    "efficientdet_w0",
    "efficientdetv2_dt",
    "resdet50",
    "cspresdet50",
    "cspresdext50pan",
    "cspdarkdet53m",
    "mixdet_m",
    "mobiledetv2_110d",
    "mobiledetv3_large",
)
SIZES = {r"_b\d$": "", r"lite\d$": "lite", r"_e[sm]$": "_edge", r"_[stml]$": "", r"_1\d0d$": ""}
"""How a backbone's name says its size: not a kind of part."""
OWN_SIZE = ("d0", "d1", "d2", "d3", "d4", "lite0", "lite1", "lite2", "lite3", "lite4")
LARGE_PICTURES = 4
"""Enough at a variant's own size, where every picture has a hundred detections."""


def kinds(config: ModelConfig) -> set[tuple[str, object]]:
    """What a graph is made of: two configs with the same kinds differ only in numbers."""
    family = config.backbone_name.removeprefix("tf_")
    for size, kind in SIZES.items():
        family = re.sub(size, kind, family)
    return {
        ("backbone", family + config.feature_location),
        ("fpn", config.fpn_name),
        ("activation", config.act_type),
        ("head activation", config.head_act_type),
        ("padding", config.pad_type),
        ("head order", config.head_bn_level_first),
        ("separable", config.separable_conv),
        ("downsample", config.downsample_type),
    }


def test_the_cover_holds_every_kind_of_part_of_every_configuration() -> None:
    covered = set().union(*(kinds(get_config(name)) for name in COVER))
    everything = set().union(*(kinds(get_config(name)) for name in list_models()))
    assert everything - covered == set()


@pytest.mark.parametrize("name", COVER)
def test_covered_configuration(name: str, tmp_path: Path) -> None:
    side = smallest_side(name)
    options = ExportOptions(weights="random", image_size=(side, side))
    source = load_source(name, options, silent)
    assert_passed(verified(*export_graph(source, options, tmp_path / "graph"), source))


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN_SIZE)
def test_scaled_variant_at_its_own_size(name: str, tmp_path: Path) -> None:
    options = ExportOptions(weights="random")
    source = load_source(resolve_name(name), options, silent)
    path, spec = export_graph(source, options, tmp_path / "graph")
    report = verified(path, spec, source, LARGE_PICTURES)
    assert report.passed, report.to_dict()
