from __future__ import annotations

import warnings

import pytest
import torch

from effdet_deploy.errors import UnknownNameError
from effdet_deploy.pytorch.network import create_model, get_config, list_models, resolve_name
from effdet_deploy.pytorch.network.config import IMAGENET_MEAN, IMAGENET_STD
from tests.networks import COVER, parts

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import effdet
    from effdet.config.model_config import efficientdet_model_param_dict as effdet_models
    from effdet.data.transforms import resolve_fill_color

SAME_NAME = (
    "name",
    "backbone_name",
    "num_classes",
    "min_level",
    "max_level",
    "num_levels",
    "num_scales",
    "anchor_scale",
    "pad_type",
    "act_type",
    "box_class_repeats",
    "fpn_cell_repeats",
    "fpn_channels",
    "separable_conv",
    "apply_resample_bn",
    "conv_bn_relu_pattern",
    "downsample_type",
    "upsample_type",
    "redundant_bias",
    "head_bn_level_first",
    "url",
)


def test_the_names_are_exactly_those_of_effdet():
    assert len(list_models()) == 47
    assert set(list_models()) == set(effdet_models)


@pytest.mark.parametrize("name", list_models())
def test_every_field_is_that_of_effdet(name):
    ours, theirs = get_config(name), effdet.get_efficientdet_config(name)
    for field in SAME_NAME:
        assert getattr(ours, field) == theirs[field], field
    assert ours.image_size == tuple(theirs.image_size)
    assert ours.mean == tuple(theirs.get("mean", IMAGENET_MEAN))
    assert ours.std == tuple(theirs.get("std", IMAGENET_STD))
    assert ours.fill_color == resolve_fill_color(theirs.get("fill_color", "mean"), ours.mean)
    assert ours.fpn_name == (theirs.fpn_name or "bifpn_fa")
    assert ours.head_act_type == (theirs.head_act_type or "")
    assert ours.backbone_indices == tuple(theirs.backbone_indices or (2, 3, 4))
    assert ours.drop_path_rate == theirs.backbone_args.drop_path_rate
    assert ours.feature_location == theirs.backbone_args.get("feature_location", "")
    assert ours.norm_eps == theirs.norm_kwargs.eps
    assert ours.norm_momentum == theirs.norm_kwargs.momentum
    for (width, height), ratio in zip(ours.aspect_ratios, theirs.aspect_ratios, strict=True):
        if isinstance(ratio, float):
            assert width / height == pytest.approx(ratio)
            assert width * height == pytest.approx(1)
        else:
            assert (width, height) == tuple(ratio)


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("d0", "tf_efficientdet_d0"),
        ("d7x", "tf_efficientdet_d7x"),
        ("d3_ap", "tf_efficientdet_d3_ap"),
        ("lite0", "tf_efficientdet_lite0"),
        ("lite3x", "tf_efficientdet_lite3x"),
        ("q2", "efficientdet_q2"),
        ("es", "efficientdet_es"),
        ("efficientdet_d0", "efficientdet_d0"),
        ("resdet50", "resdet50"),
    ],
)
def test_short_names_mean_the_published_models(short, full):
    assert resolve_name(short) == full
    assert get_config(short).name == full


@pytest.mark.parametrize("name", ["", "d8", "D0", "d7xx", "tf_efficientdet", "yolo"])
def test_other_names_are_refused_and_never_corrected(name):
    with pytest.raises(UnknownNameError):
        resolve_name(name)


def test_the_nearest_names_are_named_once_and_all_exist():
    with pytest.raises(UnknownNameError) as caught:
        resolve_name("efficientdet_q3")
    assert len(set(caught.value.nearest)) == len(caught.value.nearest)
    with pytest.raises(UnknownNameError) as caught:
        resolve_name("q7")
    assert any(resolve_name(each).endswith("q0") for each in caught.value.nearest)


def test_the_nearest_names_are_given():
    with pytest.raises(UnknownNameError) as caught:
        resolve_name("efficientdet_d9")
    assert any("efficientdet_d" in name for name in caught.value.nearest)


def test_published_files_carry_their_hash_and_lie_on_the_release_page():
    urls = [get_config(name).url for name in list_models() if get_config(name).url]
    assert len(urls) == len(set(urls)) == 32
    for url in urls:
        assert url.startswith(
            "https://github.com/rwightman/efficientdet-pytorch/releases/download/v0.1/"
        )


@pytest.mark.parametrize("name", list_models())
def test_the_state_dict_has_effdets_names_and_shapes(name):
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = create_model(name)
        theirs = effdet.create_model(name, pretrained_backbone=False)
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert shapes == {key: value.shape for key, value in ours.state_dict().items()}


def test_the_tested_configurations_have_every_backbone_activation_pyramid_and_head():
    covered = set().union(*(parts(get_config(name)) for name in COVER))
    assert covered == set().union(*(parts(get_config(name)) for name in list_models()))
