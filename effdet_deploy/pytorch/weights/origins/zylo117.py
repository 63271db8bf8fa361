"""zylo117/Yet-Another-EfficientDet-Pytorch, and its many copies.

The project is LGPL: this file uses the names of its variables, but none of its code. Its network is
effdet's with one difference: its max pooling pads with zeros, where TensorFlow and effdet pad with
minus infinity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from effdet_deploy.pytorch.weights.origins.renaming import Origin, renamed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from effdet_deploy.pytorch.weights.origins.renaming import Layout, Rule


_HEADS = {"regressor": "box_net", "classifier": "class_net"}
_BLOCK_LAYERS = {
    "_expand_conv.conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv.conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce.conv": "se.conv_reduce",
    "_se_expand.conv": "se.conv_expand",
    "_project_conv.conv": "conv_pwl",
    "_bn2": "bn3",
}
_FIRST_STAGE = {"_bn1": "bn1", "_bn2": "bn2", "_project_conv.conv": "conv_pw"}
"""Blocks of stage 0 do not expand, so the numbers of their layers are smaller by one."""


def _block(layout: Layout, index: int, layer: str, leaf: str) -> str:
    prefix = layout.blocks[index]
    first = prefix.startswith("backbone.blocks.0.")
    ours = _FIRST_STAGE.get(layer, _BLOCK_LAYERS[layer]) if first else _BLOCK_LAYERS[layer]
    return f"{prefix}.{ours}.{leaf}"


def _node(layout: Layout, cell: int, level: int, way: str, inside: str) -> str:
    number = layout.going_down(level) if way in ("up", "1") else layout.going_up(level)
    return f"fpn.cell.{cell}.fnode.{number}.{inside}"


def _convolution(layout: Layout, cell: int, level: int, way: str, layer: str, leaf: str) -> str:
    ours = {"depthwise_conv.conv": "conv_dw", "pointwise_conv.conv": "conv_pw", "bn": "bn"}[layer]
    return _node(layout, cell, level, way, f"after_combine.conv.{ours}.{leaf}")


def _resampled(layout: Layout, level: int, again: str | None, part: str, leaf: str) -> str:
    number = layout.going_up(level) if again else layout.going_down(level)
    layer = "conv.conv" if part == "0.conv" else "conv.bn"
    return f"fpn.cell.0.fnode.{number}.combine.resample.{level - 3}.{layer}.{leaf}"


RULES: tuple[Rule, ...] = (
    (r"backbone_net\.model\._conv_stem\.conv\.(\w+)", r"backbone.conv_stem.\1"),
    (r"backbone_net\.model\._bn0\.(\w+)", r"backbone.bn1.\1"),
    (r"backbone_net\.model\._blocks\.(\d+)\.(.+)\.(\w+)", _block),
    (r"bifpn\.0\.p5_to_p6\.0\.conv\.(\w+)", r"fpn.resample.3.conv.conv.\1"),
    (r"bifpn\.0\.p5_to_p6\.1\.(\w+)", r"fpn.resample.3.conv.bn.\1"),
    (r"bifpn\.0\.p(\d)_down_channel(_2)?\.(0\.conv|1)\.(\w+)", _resampled),
    (
        # p4_w1 holds the weights of the node on the way down, p4_w2 those on the way up.
        r"bifpn\.(\d+)\.p(\d)_w([12])",
        lambda layout, cell, level, way: _node(
            layout, cell, level, str(way), "combine.edge_weights"
        ),
    ),
    (
        r"bifpn\.(\d+)\.conv(\d)_(up|down)\.(depthwise_conv\.conv|pointwise_conv\.conv|bn)\.(\w+)",
        _convolution,
    ),
    (
        r"(regressor|classifier)\.(conv_list\.\d+|header)\.(depthwise|pointwise)_conv\.conv\.(\w+)",
        lambda _, head, place, kind, leaf: (
            f"{_HEADS[head]}.{place.replace('conv_list', 'conv_rep').replace('header', 'predict')}"
            f".conv_{kind[0]}w.{leaf}"
        ),
    ),
    (
        r"(regressor|classifier)\.bn_list\.(\d+)\.(\d+)\.(\w+)",
        lambda _, head, level, repeat, leaf: f"{_HEADS[head]}.bn_rep.{repeat}.{level}.bn.{leaf}",
    ),
)


def recognizes(names: Collection[str]) -> bool:
    """Return whether these are the names of a zylo117 checkpoint, without prefixes."""
    return any(each.startswith("backbone_net.model._blocks.") for each in names)


def translate(
    tensors: Mapping[str, NDArray[np.generic]], layout: Layout
) -> tuple[dict[str, NDArray[np.generic]], list[str]]:
    """Return the tensors with our names, and the names that were not mapped."""
    known, unknown = renamed(tensors, RULES, layout)
    return {ours: tensors[name] for name, ours in known.items()}, unknown


ORIGIN = Origin(
    "zylo117",
    recognizes,
    translate,
    tuple(f"tf_efficientdet_d{size}" for size in (*range(8), "7x")),
    {
        "pool_padding": "zero",
        "resize": "letterbox",
        "interpolation": "linear",
        "fill_color": "mean",
    },
    # The networks from D6 on add without weights, but their files contain weights.
    r".*\.combine\.edge_weights",
    ("The anchors are the variant's, because the weights do not hold those of zylo117's .yml.",),
)
