"""The anchors in a checkpoint of effdet's bench show how a detector was trained.

The tests use anchors that effdet made.
"""

from __future__ import annotations

import effdet
import numpy as np
import pytest
import torch
from effdet.anchors import Anchors

from effdet_deploy.artifact.anchors import anchor_boxes
from effdet_deploy.artifact.spec import AnchorSpec
from effdet_deploy.errors import WeightsError
from effdet_deploy.pytorch.network import create_model, get_config
from effdet_deploy.pytorch.weights.anchor_evidence import read_anchors, with_anchors
from effdet_deploy.pytorch.weights.loading import build_model

VARIANTS = ["tf_efficientdet_d0", "tf_efficientdet_lite0", "efficientdet_d0", "tf_efficientdet_d7x"]
SIZES = [(512, 512), (256, 256), (384, 640), (320, 448)]


def anchors_of(variant: str, size: tuple[int, int], **changes: object) -> np.ndarray:
    config = effdet.get_efficientdet_config(variant)
    config.image_size = size
    for field, value in changes.items():
        setattr(config, field, value)
    return Anchors.from_config(config).boxes.numpy()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", SIZES)
def test_effdet_s_own_anchors_change_nothing_and_bring_no_notes(variant, size):
    config = get_config(variant).replace({"image_size": size})
    same, notes = with_anchors(config, anchors_of(variant, size), (), "bench.pth")
    assert same == config
    assert notes == ()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"image_size": (256, 384)}, {"image_size": (256, 384)}),
        ({"anchor_scale": 2.5}, {"anchor_scale": 2.5}),
    ],
)
def test_settings_that_the_anchors_show_are_taken_over_and_reported(variant, change, expected):
    size = change.get("image_size", (256, 256))
    others = {key: value for key, value in change.items() if key != "image_size"}
    config = get_config(variant).replace({"image_size": (256, 256)})
    taken, notes = with_anchors(config, anchors_of(variant, size, **others), (), "bench.pth")
    assert taken == config.replace(expected)
    assert len(notes) == 1
    assert "bench.pth" in notes[0]


def test_other_aspect_ratios_are_computed_from_the_anchors():
    config = get_config("tf_efficientdet_d0")
    boxes = anchors_of("tf_efficientdet_d0", (512, 512), aspect_ratios=[1.0, 0.5, 3.0])
    said = read_anchors(boxes, config)
    ratios = [width / height for width, height in said.aspect_ratios]
    assert ratios == pytest.approx([1.0, 0.5, 3.0], rel=1e-3)
    assert said.anchor_scale == 4.0


def test_a_requested_image_size_is_kept_and_the_other_is_reported():
    config = get_config("d0")
    kept, notes = with_anchors(config, anchors_of(config.name, (256, 256)), ["image_size"], "b.pth")
    assert kept.image_size == (512, 512)
    assert "(256, 256)" in notes[0]


def test_an_option_that_the_anchors_contradict_is_an_error_that_names_both():
    config = get_config("d0").replace({"anchor_scale": 3.0})
    boxes = anchors_of(config.name, (512, 512))
    with pytest.raises(WeightsError, match=r"anchor_scale is 3\.0 .* but 4\.0"):
        with_anchors(config, boxes, ["anchor_scale"], "bench.pth")


@pytest.mark.parametrize("boxes", [np.zeros((12276, 4)), np.ones((9, 4)), np.zeros((5, 3))])
def test_anchors_that_no_configuration_gives_are_refused(boxes):
    with pytest.raises(WeightsError, match="which need 9 anchors"):
        with_anchors(get_config("d0"), boxes, (), "bench.pth")


def test_a_bench_trained_at_256_is_exported_at_256_without_an_option(tmp_path):
    """The mAP of this bench fell from 72.5 to 44.3 when the export did not look at its anchors."""
    network = create_model("d0", num_classes=3, image_size=256)
    config = effdet.get_efficientdet_config("tf_efficientdet_d0")
    config.num_classes, config.image_size = 3, (256, 256)
    bench = effdet.DetBenchPredict(effdet.EfficientDet(config, pretrained_backbone=False))
    bench.model.load_state_dict(network.state_dict())
    torch.save(bench.state_dict(), tmp_path / "bench.pth")
    loaded = build_model("d0", str(tmp_path / "bench.pth"))
    assert loaded.config.image_size == (256, 256)
    assert any("256" in note for note in loaded.notes)


def test_a_bare_state_dict_says_what_is_assumed(tmp_path):
    torch.save(create_model("d0", num_classes=3, image_size=128).state_dict(), tmp_path / "w.pth")
    assumed = " ".join(build_model("d0", str(tmp_path / "w.pth")).assumed)
    assert "anchors" in assumed
    assert "preprocessing" in assumed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_scales": 2}, ["num_scales is 2"]),
        ({"num_scales": 4, "image_size": (256, 256)}, ["num_scales is 4", "(256, 256)"]),
        (
            {"aspect_ratios": [(1.0, 1.0), (2.0, 0.5)]},
            ["aspect_ratios is ((1.0, 1.0), (2.0, 0.5))"],
        ),
        ({"max_level": 6}, ["max_level is 6"]),
    ],
)
def test_other_counts_of_anchors_are_taken_over_and_reported(tmp_path, change, said):
    config = effdet.get_efficientdet_config("tf_efficientdet_d0")
    config.num_classes = 3
    for field, value in change.items():
        setattr(config, field, value)
    if "max_level" in change:
        config.num_levels = change["max_level"] - config.min_level + 1
    bench = effdet.DetBenchPredict(effdet.EfficientDet(config, pretrained_backbone=False))
    torch.save(bench.state_dict(), tmp_path / "bench.pth")
    loaded = build_model("d0", str(tmp_path / "bench.pth"))
    notes = " ".join(loaded.notes)
    assert all(each in notes for each in said)
    assert len(loaded.notes) == len(said)
    taken = loaded.config
    spec = AnchorSpec(
        taken.min_level, taken.max_level, taken.octaves, taken.aspect_ratios, taken.anchor_scale
    )
    np.testing.assert_allclose(
        anchor_boxes(spec, *taken.image_size), bench.anchors.boxes.numpy(), atol=1e-3
    )


def test_heads_for_other_anchors_say_so_and_which_fields_to_state(tmp_path):
    network = create_model("d0", num_classes=3, image_size=128, num_scales=2)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"6 anchors per place on 5 levels, .* for 9") as caught:
        build_model("d0", str(tmp_path / "w.pth"))
    assert "num_scales" in caught.value.remedy
    assert build_model("d0", str(tmp_path / "w.pth"), overrides={"num_scales": 2}).notes == ()
