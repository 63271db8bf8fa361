from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from effdet_deploy.errors import UnknownNameError, UsageError, WeightsError
from effdet_deploy.pytorch.network import get_config, list_models
from effdet_deploy.pytorch.weights import loading as weights_module
from effdet_deploy.pytorch.weights.checkpoint import state_dict_sha256
from effdet_deploy.pytorch.weights.loading import build_model, published_url
from tests.loopback import Site, serving
from tests.pytorch.conftest import NUM_CLASSES

LABELS = ["zero", "one", "two"]


@pytest.fixture(scope="module")
def without_metadata(d0_weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save({"state_dict": {f"module.{key}": each for key, each in d0_weights.items()}}, path)
    return str(path)


@pytest.fixture(scope="module")
def with_metadata(d0_weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    metadata = {
        "variant": "d0",
        "labels": json.dumps(LABELS),
        "category_ids": "[1, 2, 5]",
        "image_size": "128x192",
    }
    save_file(d0_weights, path, metadata=metadata)
    return str(path)


def test_a_checkpoint_with_metadata_needs_no_options(with_metadata, d0_weights):
    loaded = build_model(None, with_metadata)
    assert loaded.config.name == loaded.base_config.name == "tf_efficientdet_d0"
    assert loaded.config.num_classes == NUM_CLASSES
    assert loaded.config.image_size == (128, 192)
    assert loaded.config is loaded.model.config
    assert (loaded.labels, loaded.category_ids) == (tuple(LABELS), (1, 2, 5))
    assert loaded.weights_sha256 == state_dict_sha256(d0_weights)
    assert loaded.source == "mine.safetensors (safetensors)"
    assert not loaded.model.training


def test_an_option_may_choose_another_image_size_than_the_metadata(with_metadata):
    assert build_model("d0", with_metadata, image_size=256).config.image_size == (256, 256)


def test_a_checkpoint_without_metadata_needs_its_variant_and_shows_its_class_count(
    without_metadata, with_metadata
):
    loaded = build_model("d0", without_metadata, image_size=128)
    assert loaded.config.num_classes == NUM_CLASSES
    assert (loaded.labels, loaded.category_ids) == (None, None)
    assert loaded.source == "mine.pth (torch zip, its state_dict)"
    assert loaded.weights_sha256 == build_model(None, with_metadata).weights_sha256


def test_without_a_variant_the_error_names_the_variants_that_a_checkpoint_fits(without_metadata):
    with pytest.raises(UsageError, match="tf_efficientdet_d0 or tf_efficientdet_d0_ap"):
        build_model(None, without_metadata)


def test_a_variant_that_contradicts_the_metadata_is_an_error_that_names_both(with_metadata):
    with pytest.raises(WeightsError) as caught:
        build_model("d2", with_metadata)
    assert "tf_efficientdet_d0" in caught.value.cause
    assert "tf_efficientdet_d2" in caught.value.cause


def test_a_full_name_agrees_with_a_short_one(with_metadata):
    assert build_model("tf_efficientdet_d0", with_metadata).config.name == "tf_efficientdet_d0"


def test_a_class_count_that_contradicts_the_weights_is_an_error(with_metadata):
    with pytest.raises(WeightsError, match="pass --num-classes 3"):
        build_model(None, with_metadata, num_classes=20)


@pytest.mark.parametrize("key", ["labels", "category_ids"])
def test_metadata_with_another_number_of_classes_is_an_error(d0_weights, tmp_path, key):
    values = {"labels": '["zero"]', "category_ids": "[1]"}
    path = tmp_path / "mine.safetensors"
    save_file(d0_weights, path, metadata={"variant": "d0", key: values[key]})
    with pytest.raises(WeightsError, match=f"3 classes but 1 {key}"):
        build_model(None, str(path), image_size=128)


def test_an_unknown_variant_in_the_metadata_is_an_error(d0_weights, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file(d0_weights, path, metadata={"variant": "d99"})
    with pytest.raises(UnknownNameError):
        build_model(None, str(path))


def test_config_overrides_reach_the_model(tmp_path):
    loaded = build_model(
        "d0", "random", image_size=128, num_classes=2, overrides={"fpn_cell_repeats": 1}
    )
    assert loaded.config.overrides_of(loaded.base_config) == {
        "image_size": (128, 128),
        "num_classes": 2,
        "fpn_cell_repeats": 1,
    }
    assert loaded.source == "random weights, seed 0"


def test_a_field_given_twice_must_have_one_value():
    with pytest.raises(UsageError, match="num_classes is 3 as an option, but 4"):
        build_model("d0", "random", num_classes=3, overrides={"num_classes": 4})


@pytest.mark.parametrize("again", [128, [128, 128]])
def test_a_field_may_be_given_twice_in_two_forms(again):
    loaded = build_model(
        "d0",
        "random",
        image_size=(128, 128),
        num_classes=2,
        overrides={"image_size": again, "fpn_cell_repeats": 1},
    )
    assert loaded.config.image_size == (128, 128)


@pytest.mark.parametrize("weights", ["random", "pretrained"])
def test_weights_without_a_description_need_a_variant(weights):
    with pytest.raises(UsageError, match="--variant"):
        build_model(None, weights)


def test_a_variant_without_published_weights_says_which_have_some():
    with pytest.raises(UsageError) as caught:
        build_model("mixdet_m", "pretrained")
    published = [name for name in list_models() if get_config(name).url]
    assert all(name in caught.value.remedy for name in published)
    assert published_url(get_config("d0")).endswith("d0_34-f153e0cf.pth")


def test_published_weights_with_another_class_count_are_refused_before_the_download():
    with pytest.raises(UsageError, match="90 classes, not 20"):
        build_model("d0", "pretrained", num_classes=20)


@pytest.fixture
def published(without_metadata, tmp_path, monkeypatch):
    """The address of a D0 with three classes on a loopback server, with its hash in the name."""
    content = Path(without_metadata).read_bytes()
    name = f"mine-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("EFFDET_DEPLOY_CACHE", str(tmp_path))
    with serving(Site({name: content})) as site:
        config = get_config("d0").replace({"url": site.url(name), "num_classes": NUM_CLASSES})
        monkeypatch.setattr(weights_module, "get_config", lambda _: config)
        yield site.url(name)


def test_pretrained_weights_are_downloaded_and_loaded(published, d0_weights):
    told = []
    loaded = build_model(
        "d0", image_size=128, progress=lambda received, total: told.append((received, total))
    )
    assert loaded.weights_sha256 == state_dict_sha256(d0_weights)
    assert told[-1][0] == told[-1][1] > 0


def test_a_url_is_downloaded_and_loaded(published, d0_weights):
    loaded = build_model("d0", published, image_size=128)
    assert loaded.weights_sha256 == state_dict_sha256(d0_weights)
