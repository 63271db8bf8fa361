from __future__ import annotations

import pytest
import torch

from effdet_deploy.errors import WeightsError
from effdet_deploy.pytorch.network import EfficientDet, get_config
from effdet_deploy.pytorch.weights.fitting import guess_variants, infer_num_classes, load_state
from tests.pytorch.conftest import NUM_CLASSES


def empty_weights(name: str, **overrides) -> dict[str, torch.Tensor]:
    """Return a state dict with names and shapes, but without values."""
    config = get_config(name).replace({"num_classes": NUM_CLASSES, **overrides})
    with torch.device("meta"):
        return dict(EfficientDet(config).state_dict())


def small_d0(**overrides) -> EfficientDet:
    fields = {"image_size": 128, "num_classes": NUM_CLASSES, **overrides}
    return EfficientDet(get_config("d0").replace(fields))


def refusal(model, weights) -> WeightsError:
    with pytest.raises(WeightsError) as caught:
        load_state(model, weights, "mine.pth")
    assert "mine.pth" in caught.value.cause
    return caught.value


def test_weights_that_fit_are_loaded(d0_weights):
    model = small_d0()
    load_state(model, d0_weights, "mine.pth")
    for key, value in model.state_dict().items():
        assert torch.equal(value, d0_weights[key])


def test_training_counters_may_be_absent(d0_weights):
    weights = {key: value for key, value in d0_weights.items() if "num_batches" not in key}
    model = small_d0()
    load_state(model, weights, "mine.pth")
    assert torch.equal(model.backbone.conv_stem.weight, d0_weights["backbone.conv_stem.weight"])


def test_another_class_count_says_which_option_to_pass(d0_weights):
    error = refusal(small_d0(num_classes=90), d0_weights)
    assert "2 of another shape" in error.cause
    assert "class_net.predict.conv_pw.bias [27] instead of [810]" in error.cause
    assert (
        error.remedy == "The checkpoint has 3 classes, but the model has 90: pass --num-classes 3."
    )


def test_another_variant_is_named(d0_weights):
    model = EfficientDet(get_config("d1").replace({"image_size": 128}))
    error = refusal(model, d0_weights)
    assert "tf_efficientdet_d0" in error.remedy
    assert "--variant tf_efficientdet_d0 --num-classes 3" in error.remedy


def test_ten_names_of_each_kind_are_listed_and_all_are_counted(d0_weights):
    weights = {key: value for key, value in d0_weights.items() if not key.startswith("fpn.cell.1")}
    weights |= {f"extra.{index}": torch.zeros(1) for index in range(12)}
    weights["fpn.cell.0.fnode.0.combine.edge_weights"] = torch.zeros(7)
    error = refusal(small_d0(), weights)
    missing = sum(key.startswith("fpn.cell.1") and "num_batches" not in key for key in d0_weights)
    assert f"{missing} missing" in error.cause
    assert f"and {missing - 10} more" in error.cause
    assert "12 unexpected (extra.0, extra.1" in error.cause
    assert "extra.9 and 2 more" in error.cause
    assert "edge_weights [7] instead of [2]" in error.cause


def test_a_model_that_is_not_registered_asks_for_its_overrides(d0_weights):
    error = refusal(small_d0(), {"layer1.weight": torch.zeros(1)})
    assert "the config fields (--config)" in error.remedy


def test_nothing_is_loaded_if_a_tensor_does_not_fit(d0_weights):
    model = small_d0()
    before = model.backbone.conv_stem.weight.clone()
    changed = {**d0_weights, "extra": torch.zeros(1)}
    changed["backbone.conv_stem.weight"] = torch.zeros_like(before)
    refusal(model, changed)
    assert torch.equal(model.backbone.conv_stem.weight, before)


@pytest.mark.parametrize(
    ("name", "variants"),
    [
        ("tf_efficientdet_d0", ["tf_efficientdet_d0", "tf_efficientdet_d0_ap"]),
        ("efficientdet_d0", ["efficientdet_d0"]),
        ("efficientdet_q0", ["efficientdet_q0"]),
        ("tf_efficientdet_lite0", ["tf_efficientdet_lite0"]),
        ("tf_efficientdet_d7", ["tf_efficientdet_d6", "tf_efficientdet_d7"]),
        ("resdet50", ["resdet50"]),
        ("cspresdext50pan", ["cspresdext50pan"]),
    ],
)
def test_the_variant_is_read_off_names_and_shapes(name, variants):
    assert guess_variants(empty_weights(name)) == variants


@pytest.mark.parametrize("overrides", [{"fpn_channels": 72}, {"fpn_cell_repeats": 2}])
def test_a_changed_model_is_not_taken_for_a_variant(overrides):
    assert guess_variants(empty_weights("d0", **overrides)) == []


@pytest.mark.parametrize("name", ["tf_efficientdet_d0", "efficientdet_es"])
@pytest.mark.parametrize("overrides", [{}, {"num_scales": 2}, {"num_classes": 1}])
def test_the_class_count_is_read_off_the_heads_whatever_the_anchors(name, overrides):
    expected = overrides.get("num_classes", NUM_CLASSES)
    assert infer_num_classes(empty_weights(name, **overrides)) == expected


def test_weights_without_heads_have_no_class_count():
    assert infer_num_classes({"backbone.conv_stem.weight": torch.zeros(1)}) is None
