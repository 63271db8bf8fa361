"""Settings that a training saved beside the weights are used."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, Any

import effdet
import pytest
import torch
from effdet import DetBenchTrain
from omegaconf import OmegaConf
from safetensors.torch import save_file

from effdet_deploy.errors import WeightsError
from effdet_deploy.pytorch.weights.loading import build_model
from tests.pytorch.conftest import NUM_CLASSES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    Weights = dict[str, Tensor]


@dataclasses.dataclass
class Arguments:
    image_size: int = 256


class AttributeDict(dict):
    """A dict like those of Lightning and easydict."""


def effdet_config(**changes: object) -> Any:
    config = effdet.get_efficientdet_config("tf_efficientdet_d0")
    config.num_classes = NUM_CLASSES
    for field, value in changes.items():
        OmegaConf.update(config, field, value)
    return config


def saved(path: Path, weights: Weights, **beside: object) -> str:
    torch.save({"state_dict": weights, "epoch": 3, **beside}, path)
    return str(path)


@pytest.mark.parametrize(
    "beside",
    [
        {"hyper_parameters": AttributeDict(lr=0.1, img_size=256)},
        {"hyper_parameters": {"config": {"image_size": [256, 256]}}},
        {"hparams": argparse.Namespace(image_size=256, lr=0.1)},
        {"config": effdet_config(image_size=(256, 256))},
        {"args": Arguments()},
        {"imgsz": 256, "best_summary_loss": 0.4},
        {"cfg": {"input_size": (3, 256, 256)}},
    ],
    ids=["lightning", "nested", "namespace", "omegaconf", "dataclass", "top level", "timm"],
)
def test_an_image_size_beside_the_weights_is_taken_over_and_reported(
    beside: Mapping[str, object], tmp_path: Path, d0_weights: Weights
) -> None:
    path = saved(tmp_path / "last.pth", d0_weights, **beside)
    loaded = build_model("d0", path)
    assert loaded.config.image_size == (256, 256)
    said = "image_size is (256, 256), taken from the settings in 'last.pth'"
    assert loaded.notes == (f"{said}; without them it would be (512, 512).",)
    asked = build_model("d0", path, image_size=384)
    assert asked.config.image_size == (384, 384)
    assert asked.notes == (
        "image_size is (384, 384), as requested; the settings in 'last.pth' are for (256, 256).",
    )


def test_settings_that_weights_do_not_show_are_taken_from_an_effdet_config(
    tmp_path: Path, d0_weights: Weights
) -> None:
    config = effdet_config(
        mean=[0.5, 0.5, 0.5],
        std=[0.25, 0.25, 0.25],
        fill_color="mean",
        anchor_scale=3.0,
        act_type="relu",
    )
    loaded = build_model(None, saved(tmp_path / "last.pth", d0_weights, config=config))
    assert loaded.base_config.name == "tf_efficientdet_d0"
    assert loaded.config.mean == (0.5, 0.5, 0.5)
    assert loaded.config.std == (0.25, 0.25, 0.25)
    assert loaded.config.fill_color == (128, 128, 128)
    assert loaded.config.anchor_scale == 3.0
    assert loaded.config.act_type == "relu"
    assert len(loaded.notes) == 4


def test_metadata_of_safetensors_is_used_too(tmp_path: Path, d0_weights: Weights) -> None:
    path = tmp_path / "last.safetensors"
    said = {"mean": "[0.5, 0.5, 0.5]", "config": json.dumps({"anchor_scale": 3.0}), "format": "pt"}
    save_file(d0_weights, path, {**said, "image_size": "256x256"})
    loaded = build_model("d0", str(path), image_size=128)
    assert loaded.config.mean == (0.5, 0.5, 0.5)
    assert loaded.config.anchor_scale == 3.0
    assert "the metadata in 'last.safetensors' are for (256, 256)" in " ".join(loaded.notes)


def test_the_variant_is_taken_from_timm_s_arguments(tmp_path: Path, d0_weights: Weights) -> None:
    arguments = argparse.Namespace(model="tf_efficientdet_d0", mean=None, interpolation="bilinear")
    path = saved(tmp_path / "last.pth", d0_weights, arch="tf_efficientdet_d0", args=arguments)
    loaded = build_model(None, path)
    assert loaded.config.name == "tf_efficientdet_d0"
    assert loaded.notes == ()
    with pytest.raises(WeightsError, match=r"tf_efficientdet_d0, but .* tf_efficientdet_d0_ap"):
        build_model("tf_efficientdet_d0_ap", path)


def test_a_name_that_the_weights_contradict_is_ignored_and_reported(
    tmp_path: Path, d0_weights: Weights
) -> None:
    path = saved(tmp_path / "last.pth", d0_weights, args={"model": "tf_efficientdet_d1"})
    assert (
        "name tf_efficientdet_d1, which the weights do not fit" in build_model("d0", path).notes[0]
    )


@pytest.mark.parametrize(
    ("beside", "cause", "remedy"),
    [
        (
            {"args": {"num_classes": 7}},
            "say 7 classes, but the heads .* have 3",
            "--num-classes 3",
        ),
        (
            {"args": {"img_size": 256}, "hparams": {"image_size": 384}},
            r"\(384, 384\) \(hparams.image_size\) and \(256, 256\) \(args.img_size\)",
            "--image-size",
        ),
        (
            {"args": {"model": "tf_efficientdet_d0", "arch": "tf_efficientdet_d1"}},
            r"tf_efficientdet_d0 \(args.model\) and tf_efficientdet_d1 \(args.arch\)",
            "--variant",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_both_values(
    beside: dict[str, object], cause: str, remedy: str, tmp_path: Path, d0_weights: Weights
) -> None:
    variant = None if remedy == "--variant" else "d0"
    with pytest.raises(WeightsError, match=cause) as caught:
        build_model(variant, saved(tmp_path / "last.pth", d0_weights, **beside))
    assert remedy in caught.value.remedy


def test_the_option_that_the_error_names_decides(tmp_path: Path, d0_weights: Weights) -> None:
    beside = {
        "args": {"num_classes": 7, "img_size": 256, "arch": "tf_efficientdet_d1"},
        "hparams": {"image_size": 384, "model": "tf_efficientdet_d0"},
    }
    path = saved(tmp_path / "last.pth", d0_weights, **beside)
    loaded = build_model("d0", path, num_classes=NUM_CLASSES, image_size=128)
    assert loaded.config.num_classes == NUM_CLASSES
    assert loaded.config.image_size == (128, 128)


def test_a_class_count_with_the_background_is_not_a_contradiction(
    tmp_path: Path, d0_weights: Weights
) -> None:
    path = saved(tmp_path / "last.pth", d0_weights, args={"num_classes": NUM_CLASSES + 1})
    assert build_model("d0", path).config.num_classes == NUM_CLASSES


def test_an_option_that_contradicts_the_settings_is_refused_with_both_values(
    tmp_path: Path, d0_weights: Weights
) -> None:
    path = saved(tmp_path / "last.pth", d0_weights, config=effdet_config(anchor_scale=3.0))
    with pytest.raises(WeightsError, match=r"anchor_scale is 5.0 .* but 3.0 according to"):
        build_model("d0", path, overrides={"anchor_scale": 5.0})


def test_anchors_that_contradict_the_settings_are_refused_with_both_values(
    tmp_path: Path, d0_weights: Weights
) -> None:
    bench = DetBenchTrain(
        effdet.EfficientDet(effdet_config(image_size=(256, 256)), pretrained_backbone=False)
    )
    path = saved(tmp_path / "last.pth", bench.state_dict(), args={"img_size": 384})
    with pytest.raises(WeightsError, match=r"is \(384, 384\) .* but \(256, 256\) according to its"):
        build_model("d0", path)
    assert build_model("d0", path, image_size=256).config.image_size == (256, 256)


@pytest.mark.parametrize(
    "beside",
    [
        {"args": {"img_size": [640, 480]}},
        {"args": {"img_size": 7}},
        {"args": {"mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]}},
        {"args": {"model": "resnet50", "anchor_scale": 10**400, "fill_color": "black"}},
        {"args": {"model": "x" * 100_000, "image_size": 10**5000}},
        {"config": [1, 2], "args": None, "hparams": {}, "mean": 0.1},
        {"args": {"interpolation": "linear", "resize": "stretch", "name": "d1"}},
    ],
)
def test_fields_with_another_meaning_are_ignored(
    beside: dict[str, object], tmp_path: Path, d0_weights: Weights
) -> None:
    loaded = build_model("d0", saved(tmp_path / "last.pth", d0_weights, **beside))
    assert loaded.config == loaded.base_config.replace({"num_classes": NUM_CLASSES})
    assert loaded.notes == ()
