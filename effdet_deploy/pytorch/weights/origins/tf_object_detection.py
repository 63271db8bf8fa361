"""The TensorFlow Object Detection API's EfficientDet, D0 to D7.

Two things differ from effdet's network: the backbone's features come from fixed blocks, whatever
its depth; and the anchors of a place are ordered by aspect ratio first.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from effdet_deploy.pytorch.network.config import IMAGENET_MEAN, IMAGENET_STD
from effdet_deploy.pytorch.weights.origins.pipeline_config import ASPECTS, SCALES, SETTINGS
from effdet_deploy.pytorch.weights.origins.renaming import Origin, renamed
from effdet_deploy.pytorch.weights.origins.tensorflow_names import LEAVES, as_torch, separable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from effdet_deploy.pytorch.weights.origins.renaming import Layout, Rule


_LAYERS = {
    "expand_conv2d": "conv_pw",
    "expand_bn": "bn1",
    "depthwise_conv2d": "conv_dw",
    "depthwise_bn": "bn2",
    "se_reduce_conv2d": "se.conv_reduce",
    "se_expand_conv2d": "se.conv_expand",
    "project_conv2d": "conv_pwl",
    "project_bn": "bn3",
}
_FIRST_STAGE = {"depthwise_bn": "bn1", "project_conv2d": "conv_pw", "project_bn": "bn2"}
"""Blocks of stage 0 do not expand, so these layers have other names in them."""
_HEADS = {"Box": "box_net", "Class": "class_net"}
_PREDICTOR = "WeightSharedConvolutionalBoxPredictor"
_INPUT = r"input_\d+_up_lvl_(\d)/1x1_pre_sample/(conv|batchnorm)/(\w+)"
_NODE = r"EfficientDet-D\d+/bifpn/node_(\d+)/\d+_(?:up|dn)_lvl_\d/"
_BEFORE_CELLS = 2
"""Nodes 0 and 1 make levels 6 and 7 from the backbone's last feature map."""
_MIN_LEVEL = 3
_ROOT = math.sqrt(2)


def _block(_: Layout, stage: int, block: int, layer: str, leaf: str) -> str:
    ours = _FIRST_STAGE.get(layer, _LAYERS[layer]) if stage == 0 else _LAYERS[layer]
    return f"backbone.blocks.{stage}.{block}.{ours}.{LEAVES[leaf]}"


def _node(layout: Layout, number: int) -> str:
    cell, node = divmod(number - _BEFORE_CELLS, layout.nodes)
    return f"fpn.cell.{cell}.fnode.{node}"


def _resampled(layout: Layout, number: int, level: int, part: str, leaf: str) -> str:
    layer = f"conv.{'conv' if part == 'conv' else 'bn'}.{LEAVES[leaf]}"
    if number < _BEFORE_CELLS:
        return f"fpn.resample.{number + _MIN_LEVEL}.{layer}"
    return f"{_node(layout, number)}.combine.resample.{level - _MIN_LEVEL}.{layer}"


RULES: tuple[Rule, ...] = (
    (r"stem_conv2d/kernel", "backbone.conv_stem.weight"),
    (r"stem_bn/(\w+)", lambda _, leaf: f"backbone.bn1.{LEAVES[leaf]}"),
    (r"stack_(\d)/block_(\d+)/(\w+)/(\w+)", _block),
    (_NODE + _INPUT, _resampled),
    (
        _NODE + r"combine/bifpn_combine_weights",
        lambda layout, number: f"{_node(layout, number)}.combine.edge_weights",
    ),
    (
        _NODE + r"post_combine/separable_conv/(\w+)",
        lambda layout, number, leaf: (
            f"{_node(layout, number)}.after_combine.conv.{separable(leaf)}"
        ),
    ),
    (
        _NODE + r"post_combine/batchnorm/(\w+)",
        lambda layout, number, leaf: (
            f"{_node(layout, number)}.after_combine.conv.bn.{LEAVES[leaf]}"
        ),
    ),
    (
        _PREDICTOR + r"/(Box|Class)PredictionTower/conv2d_(\d+)/BatchNorm/feature_(\d)/(\w+)",
        lambda _, head, repeat, level, leaf: (
            f"{_HEADS[head]}.bn_rep.{repeat}.{level}.bn.{LEAVES[leaf]}"
        ),
    ),
    (
        _PREDICTOR + r"/(Box|Class)PredictionTower/conv2d_(\d+)/(\w+)",
        lambda _, head, repeat, leaf: f"{_HEADS[head]}.conv_rep.{repeat}.{separable(leaf)}",
    ),
    (
        _PREDICTOR + r"/WeightSharedConvolutional(Box|Class)Head/(?:Box|Class)Predictor/(\w+)",
        lambda _, head, leaf: f"{_HEADS[head]}.predict.{separable(leaf)}",
    ),
)


def recognizes(names: Collection[str]) -> bool:
    """Return whether these are the names of a checkpoint of the Object Detection API."""
    return any(f"{_PREDICTOR}/" in each for each in names) and any(
        "/bifpn/" in each for each in names
    )


def translate(
    tensors: Mapping[str, NDArray[np.generic]], layout: Layout
) -> tuple[dict[str, NDArray[np.generic]], list[str]]:
    """Return the tensors with our names and in our order, and the names that were not mapped."""
    known, unknown = renamed(tensors, RULES, layout)
    found = {ours: as_torch(name.rpartition("/")[2], tensors[name]) for name, ours in known.items()}
    for ours, value in found.items():
        if ours.endswith((".predict.conv_pw.weight", ".predict.conv_pw.bias")):
            found[ours] = _scales_first(value)
        elif ours.endswith(".edge_weights"):
            found[ours] = value.reshape(-1)
    return found, unknown


def _scales_first(value: NDArray[np.generic]) -> NDArray[np.generic]:
    """Reorder the outputs of a predict layer by octave scale first, as in effdet."""
    grouped = value.reshape(ASPECTS, SCALES, -1, *value.shape[1:])
    return grouped.swapaxes(0, 1).reshape(value.shape)


ORIGIN = Origin(
    "tf-object-detection",
    recognizes,
    translate,
    tuple(f"tf_efficientdet_d{size}" for size in range(8)),
    {
        "feature_blocks": ((2, 1), (4, 2), (6, 0)),
        "aspect_ratios": ((1.0, 1.0), (_ROOT, 1 / _ROOT), (1 / _ROOT, _ROOT)),
        # The API's resizer pads with black before the normalization.
        "fill_color": 0,
        "resize": "letterbox",
        "interpolation": "linear",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
    },
    # Blocks after the last feature map belong to the classifier that the file came from.
    r"backbone\.blocks\.6\..*",
    ("The anchors are the API's default, because there is no pipeline.config beside the weights.",),
    SETTINGS,
)
