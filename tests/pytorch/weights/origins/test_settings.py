"""Settings that a training left beside its weights fill the configuration or contradict an option.

The texts have the projects' own form: automl's configuration by ``yaml.dump``, with its tuples, and
a ``pipeline.config`` as in the API's model zoo.
"""

from __future__ import annotations

import functools
import math
import tempfile
from pathlib import Path

import pytest

from effdet_deploy.errors import WeightsError
from effdet_deploy.pytorch.weights.loading import build_model
from effdet_deploy.pytorch.weights.origins import ORIGINS
from tests.pytorch.weights.origins.test_origins import CLASSES, SIDE, written

CONFIG_YAML = """\
act_type: swish
anchor_scale: 3.0
apply_bn_for_resampling: true
aspect_ratios:
- !!python/tuple
  - 1.0
  - 1.0
- !!python/tuple
  - 1.6
  - 0.8
- !!python/tuple
  - 0.8
  - 1.6
backbone_name: efficientnet-b0
box_class_repeats: 3
conv_after_downsample: false
fpn_cell_repeats: 3
fpn_num_filters: 64
image_size: 160x128
label_map:
  1: fork
  3: spoon
max_level: 7
mean_rgb:
- 123.675
- 116.28
- 103.53
min_level: 3
name: efficientdet-d0
nms_configs:
  iou_thresh: null
  method: gaussian
num_classes: 3
num_scales: 3
separable_conv: true
stddev_rgb: 127.5
survival_prob: null
"""
PIPELINE_CONFIG = """\
# SSD with EfficientNet-b0 + BiFPN feature extractor
model {
  ssd {
    inplace_batchnorm_update: true
    num_classes: 3
    add_background_class: false
    box_coder {
      faster_rcnn_box_coder { y_scale: 1.0 x_scale: 1.0 height_scale: 1.0 width_scale: 1.0 }
    }
    matcher { argmax_matcher { matched_threshold: 0.5 ignore_thresholds: false } }
    anchor_generator {
      multiscale_anchor_generator {
        min_level: 3
        max_level: 7
        anchor_scale: 3.0
        aspect_ratios: [1.0, 3.0, 0.5]
        scales_per_octave: 3
      }
    }
    image_resizer {
      keep_aspect_ratio_resizer {
        min_dimension: 128
        max_dimension: 128
        pad_to_max_dimension: true
        }
    }
    feature_extractor {
      type: "ssd_efficientnet-b0_bifpn_keras"
      bifpn { min_level: 3 max_level: 7 num_iterations: 3 num_filters: 64 }
      conv_hyperparams { activation: SWISH, batch_norm { decay: 0.99 epsilon: 0.001 } }
    }
    post_processing { score_converter: SIGMOID }
  }
}
train_config: { fine_tune_checkpoint: "PATH" batch_size: 128 }
"""


@functools.cache
def checkpoint(origin: str) -> dict[str, bytes]:
    """Return the files of a D0 of ``origin``, which are written only once."""
    with tempfile.TemporaryDirectory() as folder:
        written(origin, Path(folder))
        return {each.name: each.read_bytes() for each in Path(folder).iterdir()}


def beside(origin: str, name: str, text: str, folder: Path) -> str:
    """Write a file of settings and weights into one folder; return the path of the weights."""
    (folder / name).write_text(text, encoding="utf-8")
    for each, content in checkpoint(origin).items():
        (folder / each).write_bytes(content)
    return str(folder / "ckpt-1")


def test_config_yaml_of_automl_fills_fields_without_an_option(tmp_path):
    loaded = build_model(None, beside("automl", "config.yaml", CONFIG_YAML, tmp_path))
    config = loaded.config
    assert loaded.base_config.name == "tf_efficientdet_d0"
    assert config.image_size == (128, 160)
    assert config.num_classes == CLASSES
    assert config.anchor_scale == 3
    assert config.aspect_ratios == ((1.0, 1.0), (1.6, 0.8), (0.8, 1.6))
    assert config.mean == (0.485, 0.456, 0.406)
    assert config.std == (0.5, 0.5, 0.5)
    assert loaded.labels == ("fork", "unused 2", "spoon")
    assert loaded.assumed == ()
    assert any("anchor_scale" in each and "config.yaml" in each for each in loaded.notes)


def test_hparams_yaml_says_what_a_user_overrode(tmp_path):
    text = "num_classes: 3\nimage_size: 192\naspect_ratios: [1.0, 2.0, 0.5]\n"
    loaded = build_model("d0", beside("automl", "hparams.yaml", text, tmp_path))
    assert loaded.config.image_size == (192, 192)
    assert loaded.config.anchor_scale == 4
    widths = [width for width, _ in loaded.config.aspect_ratios]
    assert widths == pytest.approx([1, math.sqrt(2), math.sqrt(0.5)])
    assert loaded.assumed != ()


def test_pipeline_config_of_the_api_fills_fields_without_an_option(tmp_path):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (tmp_path / "pipeline.config").write_text(PIPELINE_CONFIG, encoding="utf-8")
    for each, content in checkpoint("tf-object-detection").items():
        (folder / each).write_bytes(content)
    loaded = build_model(None, str(folder))
    config = loaded.config
    assert config.image_size == (128, 128)
    assert config.anchor_scale == 3
    assert config.fill_color == (0, 0, 0)
    root = math.sqrt(3)
    assert config.aspect_ratios[1] == pytest.approx((root, 1 / root))
    assert loaded.assumed == ()


@pytest.mark.parametrize(
    ("resizer", "size", "rule", "said"),
    [
        ("fixed_shape_resizer { height: 128 width: 192 }", (128, 192), "stretch", ""),
        (
            """keep_aspect_ratio_resizer { min_dimension: 128 max_dimension: 256
            pad_to_max_dimension: true per_channel_pad_value: [124, 116, 104] }""",
            (256, 256),
            "letterbox",
            "short side of 128",
        ),
    ],
)
def test_the_api_s_way_of_resizing_is_taken_or_reported(tmp_path, resizer, size, rule, said):
    start = PIPELINE_CONFIG.index("image_resizer")
    end = PIPELINE_CONFIG.index("feature_extractor {")
    text = f"{PIPELINE_CONFIG[:start]}image_resizer {{ {resizer} }} {PIPELINE_CONFIG[end:]}"
    loaded = build_model(None, beside("tf-object-detection", "pipeline.config", text, tmp_path))
    assert loaded.config.image_size == size
    assert (loaded.config.resize, loaded.config.interpolation) == (rule, "linear")
    assert said in " ".join(loaded.assumed) if said else loaded.assumed == ()
    filled = "pad_value" in resizer
    assert loaded.config.fill_color == ((124, 116, 104) if filled else (0, 0, 0))


FILES = {
    "automl": ("config.yaml", CONFIG_YAML),
    "tf-object-detection": ("pipeline.config", PIPELINE_CONFIG),
}


@pytest.mark.parametrize("origin", FILES)
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({"overrides": {"anchor_scale": 5.0}}, "5.0 .* 3.0"),
        ({"num_classes": 7}, "7 .* 3"),
        ({"variant": "d1"}, "tf_efficientdet_d0.*tf_efficientdet_d1"),
    ],
)
def test_an_option_that_contradicts_the_settings_is_refused_and_both_are_named(
    tmp_path, origin, options, theirs
):
    name, text = FILES[origin]
    path = beside(origin, name, text, tmp_path)
    options = {"variant": "d0"} | options
    with pytest.raises(WeightsError, match=theirs) as caught:
        build_model(options.pop("variant"), path, **options)
    assert caught.value.exit_code == 5
    assert name in str(caught.value)


@pytest.mark.parametrize("origin", FILES)
def test_an_option_with_the_same_value_is_not_a_conflict(tmp_path, origin):
    name, text = FILES[origin]
    path = beside(origin, name, text, tmp_path)
    loaded = build_model("d0", path, num_classes=CLASSES, overrides={"anchor_scale": 3.0})
    assert loaded.config.anchor_scale == 3


@pytest.mark.parametrize("origin", FILES)
def test_a_requested_image_size_is_kept_and_the_other_is_reported(tmp_path, origin):
    name, text = FILES[origin]
    loaded = build_model("d0", beside(origin, name, text, tmp_path), image_size=2 * SIDE)
    assert loaded.config.image_size == (2 * SIDE, 2 * SIDE)
    assert any("as requested" in each and name in each for each in loaded.notes)


@pytest.mark.parametrize("origin", FILES)
def test_a_file_of_other_weights_is_refused_and_both_counts_are_named(tmp_path, origin):
    name, text = FILES[origin]
    text = text.replace("num_classes: 3", "num_classes: 20")
    with pytest.raises(WeightsError, match=f"{name}.* 20 .* 3"):
        build_model("d0", beside(origin, name, text, tmp_path))


@pytest.mark.parametrize(
    ("origin", "old", "new", "said"),
    [
        ("automl", "survival_prob: null", "survival_prob: 0.8", "survival_prob"),
        (
            "automl",
            "conv_after_downsample: false",
            "conv_after_downsample: true",
            "conv_after_downsample",
        ),
        ("tf-object-detection", "y_scale: 1.0", "y_scale: 10.0", "box codes by 10, 1, 1, 1"),
        ("tf-object-detection", "box_coder {", "other_coder {", "box codes by 10, 10, 5, 5"),
        ("tf-object-detection", "[1.0, 3.0, 0.5]", "[1.0, 3.0]", "3 octave scales and 2 aspect"),
    ],
)
def test_a_network_whose_difference_does_not_show_in_its_variables_is_refused(
    tmp_path, origin, old, new, said
):
    name, text = FILES[origin]
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(WeightsError, match=said):
        ORIGINS[origin].settings.beside(tmp_path / "ckpt-1")


@pytest.mark.parametrize(
    ("origin", "text", "said"),
    [
        ("automl", "num_classes: many", "num_classes is many"),
        ("automl", "just a line", "no keys"),
        ("automl", "a: [1", "parsing"),
        ("automl", "!!python/object/apply:os.system ['false']", "no keys"),
        ("automl", "label_map: {9: x}\nnum_classes: 3", "label_map"),
        ("tf-object-detection", "model { ssd {", "Expected"),
        ("tf-object-detection", "model { faster_rcnn { } }", "SSD"),
        ("tf-object-detection", "model { ssd { num_classes: many } }", "many"),
    ],
)
def test_settings_that_cannot_be_read_are_named(tmp_path, origin, text, said):
    name = FILES[origin][0]
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=f"{name}.*{said}") as caught:
        ORIGINS[origin].settings.beside(tmp_path / "ckpt-1")
    assert caught.value.exit_code == 5
