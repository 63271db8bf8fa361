"""google/automl's EfficientDet and its lite models, with their variable names in TF1 and Keras."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy.pytorch.weights.origins.hparams import SETTINGS
from effdet_deploy.pytorch.weights.origins.renaming import Origin, renamed
from effdet_deploy.pytorch.weights.origins.tensorflow_names import LEAVES, as_torch, separable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from effdet_deploy.pytorch.weights.origins.renaming import Layout, Rule


_NORM = r"(?:tpu_|sync_)?batch_normalization(?:_(\d))?"
_AVERAGE = "/ExponentialMovingAverage"
_ROOTS = re.compile(r"(?:efficientnet-|resample_p|fpn_cells/|class_net/|box_net/)")
_MIN_LEVEL = 3


def _norm(layout: Layout, block: int, number: int | None, leaf: str) -> str:
    return f"{layout.blocks[block]}.bn{(number or 0) + 1}.{LEAVES[leaf]}"


def _fused_part(_: Layout, cell: int, node: int, source: int, part: str, leaf: str) -> str:
    layer = "conv" if part == "conv2d" else "bn"
    return f"fpn.cell.{cell}.fnode.{node}.combine.resample.{source}.conv.{layer}.{LEAVES[leaf]}"


RULES: tuple[Rule, ...] = (
    (r"efficientnet-[^/]+/stem/conv2d/kernel", "backbone.conv_stem.weight"),
    (
        rf"efficientnet-[^/]+/stem/{_NORM}/(\w+)",
        lambda _, _number, leaf: f"backbone.bn1.{LEAVES[leaf]}",
    ),
    (rf"efficientnet-[^/]+/blocks_(\d+)/{_NORM}/(\w+)", _norm),
    (
        r"efficientnet-[^/]+/blocks_(\d+)/(conv2d|conv2d_1|depthwise_conv2d)/\w+",
        lambda layout, block, layer: (
            f"{layout.blocks[block]}."
            + {"conv2d": "conv_pw", "conv2d_1": "conv_pwl", "depthwise_conv2d": "conv_dw"}[layer]
            + ".weight"
        ),
    ),
    (
        r"efficientnet-[^/]+/blocks_(\d+)/se/conv2d(_1)?/(\w+)",
        lambda layout, block, second, leaf: (
            f"{layout.blocks[block]}.se.conv_{'expand' if second else 'reduce'}.{LEAVES[leaf]}"
        ),
    ),
    (
        r"resample_p(\d)/(conv2d|bn)/(\w+)",
        lambda _, level, part, leaf: (
            f"fpn.resample.{level - _MIN_LEVEL}.conv.{part.removesuffix('2d')}.{LEAVES[leaf]}"
        ),
    ),
    (r"fpn_cells/cell_(\d+)/fnode(\d+)/resample_\d+_(\d+)_\d+/(conv2d|bn)/(\w+)", _fused_part),
    (
        r"fpn_cells/cell_(\d+)/fnode(\d+)/WSM(?:_(\d))?",
        # This scalar is one entry of our vector. Its index is written after the vector's name;
        # :func:`translate` joins the entries.
        lambda _, cell, node, place: (
            f"fpn.cell.{cell}.fnode.{node}.combine.edge_weights/{place or 0}"
        ),
    ),
    (
        r"fpn_cells/cell_(\d+)/fnode(\d+)/op_after_combine\d+/conv/(\w+)",
        lambda _, cell, node, leaf: (
            f"fpn.cell.{cell}.fnode.{node}.after_combine.conv.{separable(leaf)}"
        ),
    ),
    (
        r"fpn_cells/cell_(\d+)/fnode(\d+)/op_after_combine\d+/bn/(\w+)",
        lambda _, cell, node, leaf: (
            f"fpn.cell.{cell}.fnode.{node}.after_combine.conv.bn.{LEAVES[leaf]}"
        ),
    ),
    (
        r"(class|box)_net/(?:class|box)-(\d+)-bn-(\d+)/(\w+)",
        lambda _, head, repeat, level, leaf: (
            f"{head}_net.bn_rep.{repeat}.{level - _MIN_LEVEL}.bn.{LEAVES[leaf]}"
        ),
    ),
    (
        r"(class|box)_net/(?:class|box)-(\d+|predict)/(\w+)",
        lambda _, head, place, leaf: (
            f"{head}_net.{'predict' if place == 'predict' else f'conv_rep.{place}'}"
            f".{separable(leaf)}"
        ),
    ),
)


def recognizes(names: Collection[str]) -> bool:
    """Return whether these are the names of an automl checkpoint."""
    return any("fpn_cells/cell_" in each for each in names)


def translate(
    tensors: Mapping[str, NDArray[np.generic]], layout: Layout
) -> tuple[dict[str, NDArray[np.generic]], list[str]]:
    """Return the tensors by our names, with averages where they exist, and the unmapped names."""
    averages = {each.removesuffix(_AVERAGE): each for each in tensors if each.endswith(_AVERAGE)}
    sources = {
        _plain(each): averages.get(each, each) for each in tensors if each not in averages.values()
    }
    known, unknown = renamed(sources, RULES, layout)
    found: dict[str, NDArray[np.generic]] = {}
    weights: dict[str, dict[int, NDArray[np.generic]]] = {}
    for name, ours in known.items():
        value = as_torch(name.rpartition("/")[2], tensors[sources[name]])
        vector, is_place, place = ours.partition("/")
        if is_place:
            weights.setdefault(vector, {})[int(place)] = value
        else:
            found[ours] = value
    found |= {
        vector: np.stack([places[place] for place in sorted(places)])
        for vector, places in weights.items()
    }
    return found, unknown


def _plain(name: str) -> str:
    """Remove the prefixes of wrappers, and a scope that Keras's .h5 repeats, from a name."""
    roots = [match.start() for match in _ROOTS.finditer(name)]
    return name[roots[-1] :].removesuffix(":0") if roots else name


ORIGIN = Origin(
    "automl",
    recognizes,
    translate,
    (
        *(f"tf_efficientdet_d{size}" for size in (*range(8), "7x")),
        *(f"tf_efficientdet_lite{size}" for size in (*range(5), "3x")),
    ),
    # automl normalizes, resizes without antialiasing, and then pads with zeros, which are the mean.
    overrides={"resize": "letterbox", "interpolation": "linear", "fill_color": "mean"},
    assumed=(
        "The anchors are the variant's, because there is no hparams.yaml beside the weights.",
    ),
    settings=SETTINGS,
)
