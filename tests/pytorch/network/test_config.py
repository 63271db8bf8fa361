from __future__ import annotations

import pytest
import torch

from effdet_deploy.errors import UnknownNameError, UsageError
from effdet_deploy.pytorch.network import create_model, get_config
from effdet_deploy.pytorch.network.blocks import activation
from effdet_deploy.pytorch.network.config import ACTIVATIONS

D0 = get_config("d0")


@pytest.mark.parametrize(
    ("overrides", "field", "value"),
    [
        ({"image_size": 640}, "image_size", (640, 640)),
        ({"image_size": [256, 384]}, "image_size", (256, 384)),
        ({"anchor_scale": 3}, "anchor_scale", 3.0),
        ({"aspect_ratios": [[1.0, 1.0], [2.0, 0.5]]}, "aspect_ratios", ((1.0, 1.0), (2.0, 0.5))),
        ({"aspect_ratios": [1.0, 4.0]}, "aspect_ratios", ((1.0, 1.0), (2.0, 0.5))),
        ({"fill_color": [0, 0, 0]}, "fill_color", (0, 0, 0)),
        ({"separable_conv": False}, "separable_conv", False),
    ],
)
def test_fields_are_overridden_from_json_values(overrides, field, value):
    assert getattr(D0.replace(overrides), field) == value


@pytest.mark.parametrize(
    "overrides",
    [
        {"image_size": 640.0},
        {"image_size": [640]},
        {"image_size": "640"},
        {"num_classes": "20"},
        {"num_classes": True},
        {"num_classes": 0},
        {"num_classes": 2.5},
        {"mean": [0.5, 0.5]},
        {"separable_conv": 1},
        {"fpn_channels": -1},
        {"min_level": 8},
        {"aspect_ratios": []},
        {"octave_scales": [1.0, 1.3]},
        {"octave_scales": [1.0, 1.3, -1.0]},
        {"octave_scales": "1, 2, 3"},
        {"feature_blocks": [[1, 2, 3]]},
        {"pool_padding": "ones"},
        {"aspect_ratios": [-1.0]},
        {"aspect_ratios": [[1.0, "a"]]},
        {"aspect_ratios": [[1.0, 1.0, 1.0]]},
        {"std": ["a", "b", "c"]},
        {"fill_color": [0.5, 0, 0]},
        {"anchor_scale": 0.0},
        {"std": [0.0, 1.0, 1.0]},
        {"fill_color": [300, 0, 0]},
        {"norm_eps": -1.0},
        {"backbone_indices": []},
        {"backbone_indices": [-1, 2]},
        {"backbone_indices": [3, 2, 4]},
    ],
)
def test_values_of_another_type_or_out_of_range_are_refused(overrides):
    with pytest.raises(UsageError) as caught:
        D0.replace(overrides)
    said = caught.value
    assert next(iter(overrides)) in said.cause + said.remedy


def test_a_feature_map_that_the_backbone_lacks_is_named():
    with pytest.raises(UsageError, match=r"tf_efficientnet_b0.*\[2, 3, 9\]"):
        create_model("d0", image_size=128, backbone_indices=[2, 3, 9])


@pytest.mark.parametrize(
    "overrides",
    [
        {"fpn_chanels": 64},
        {"fpn_name": "bifpn_fast"},
        {"downsample_type": "maxx"},
        {"act_type": "mishh"},
    ],
)
def test_unknown_fields_and_choices_give_the_nearest(overrides):
    with pytest.raises(UnknownNameError) as caught:
        D0.replace(overrides)
    assert caught.value.nearest


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_exists_in_timm(name):
    assert activation(name, inplace=False)(torch.zeros(1)).shape == (1,)


@pytest.mark.parametrize(
    ("overrides", "field", "expected"),
    [
        ({"mean": 0.5}, "mean", (0.5, 0.5, 0.5)),
        ({"mean": 0.5}, "fill_color", (128, 128, 128)),
        ({"mean": 0.5, "fill_color": 0}, "fill_color", (0, 0, 0)),
        ({"fill_color": "mean"}, "fill_color", (124, 116, 104)),
        ({"in_chans": 1}, "mean", (0.449,)),
        ({"in_chans": 1}, "fill_color", (115,)),
        ({"in_chans": 1, "mean": 0.2}, "fill_color", (51,)),
        ({"in_chans": 4}, "std", (0.229, 0.224, 0.225, 0.226)),
        ({"in_chans": 4, "std": [0.1, 0.2, 0.3, 0.4]}, "std", (0.1, 0.2, 0.3, 0.4)),
    ],
)
def test_one_number_stands_for_all_channels_and_the_fill_follows_the_mean(
    overrides, field, expected
):
    changed = D0.replace(overrides)
    assert getattr(changed, field) == pytest.approx(expected)
    assert D0.replace(changed.overrides_of(D0)) == changed


@pytest.mark.parametrize(
    "overrides",
    [
        {"in_chans": 2},
        {"in_chans": 1, "trained_on": "bgr"},
        {"in_chans": 1, "mean": [0.5, 0.5, 0.5]},
        {"resize": "mean"},
        {"trained_on": "gray"},
        {"interpolation": "cubic"},
    ],
)
def test_an_invalid_preprocessing_is_refused(overrides):
    with pytest.raises(UsageError):
        D0.replace(overrides)


def test_the_overrides_of_a_config_are_the_changed_fields():
    overrides = {"num_classes": 20, "image_size": (256, 320)}
    assert D0.replace(overrides).overrides_of(D0) == overrides
    assert D0.overrides_of(D0) == {}


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (512, ((64, 64), (32, 32), (16, 16), (8, 8), (4, 4))),
        ((333, 500), ((42, 63), (21, 32), (11, 16), (6, 8), (3, 4))),
    ],
)
def test_level_sizes_are_halved_and_rounded_up(size, expected):
    assert D0.replace({"image_size": size}).feature_sizes == expected


def test_keyword_overrides_reach_the_model():
    model = create_model("d0", num_classes=3, image_size=(128, 192), fpn_cell_repeats=1)
    assert model.config.num_classes == 3
    assert model.config.image_size == (128, 192)
    assert len(model.fpn.cell) == 1
    assert model.class_net.predict.conv_pw.out_channels == 3 * model.config.num_anchors


def test_an_unknown_backbone_gives_the_nearest():
    with pytest.raises(UnknownNameError, match="timm backbone"):
        create_model("d0", backbone_name="tf_efficientnet_b00")


def test_the_fill_follows_a_mean_that_is_given_alone_as_effdets_does():
    from effdet.data.transforms import resolve_fill_color

    mean = [0.5, 0.25, 0.1]
    config = get_config("d0").replace({"mean": mean})
    assert config.fill_color == resolve_fill_color("mean", mean)
    given = {"mean": mean, "fill_color": [0, 0, 0]}
    assert get_config("d0").replace(given).fill_color == (0, 0, 0)
    assert get_config("d0").replace({"std": mean}).fill_color == get_config("d0").fill_color
