"""Anchors are effdet's, number by number, for every anchor setting that effdet has."""

from __future__ import annotations

import numpy as np
import pytest

from effdet_deploy.artifact.anchors import anchor_boxes, anchor_count, feature_sizes
from effdet_deploy.artifact.spec import AnchorSpec, even_octaves

PAPER_RATIOS = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))


def anchor_spec(config) -> AnchorSpec:
    pairs = tuple(
        tuple(ratio)
        if hasattr(ratio, "__len__") or hasattr(ratio, "__getitem__")
        else (float(np.sqrt(ratio)), float(1 / np.sqrt(ratio)))
        for ratio in config.aspect_ratios
    )
    return AnchorSpec(
        config.min_level,
        config.max_level,
        even_octaves(config.num_scales),
        pairs,
        config.anchor_scale,
    )


@pytest.mark.parametrize("size", [(128, 128), (448, 448), (320, 448), (333, 500), (256, 640)])
def test_anchors_equal_effdets_for_every_kind_of_anchor_setting(size):
    anchors = pytest.importorskip("effdet.anchors")
    config = pytest.importorskip("effdet.config.model_config")
    seen = {}
    for name in config.efficientdet_model_param_dict:
        seen.setdefault(anchor_spec(config.get_efficientdet_config(name)), name)
    assert len(seen) >= 4
    for spec, name in seen.items():
        settings_ = config.get_efficientdet_config(name)
        settings_.image_size = size
        expected = anchors.Anchors.from_config(settings_).boxes.numpy()
        np.testing.assert_array_equal(anchor_boxes(spec, *size), expected, err_msg=name)
        assert anchor_count(spec, *size) == len(expected)


def test_feature_sizes_halve_rounding_up():
    assert feature_sizes(333, 500, 7)[3:] == [(42, 63), (21, 32), (11, 16), (6, 8), (3, 4)]


def test_the_cached_anchors_cannot_be_changed_by_a_caller():
    anchors = anchor_boxes(AnchorSpec(3, 7, even_octaves(3), PAPER_RATIOS, 4.0), 128, 128)
    with pytest.raises(ValueError, match="read-only"):
        anchors[0] = 0
