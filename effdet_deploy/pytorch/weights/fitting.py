"""Does a checkpoint fit a model, and if not, which variant does it fit?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from effdet_deploy.errors import UsageError, WeightsError
from effdet_deploy.pytorch.network.efficientdet import EfficientDet
from effdet_deploy.pytorch.network.registry import get_config, list_models, resolve_name
from effdet_deploy.pytorch.network.topology import UNWEIGHTED, fpn_topology

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from effdet_deploy.pytorch.network.config import ModelConfig
    from effdet_deploy.pytorch.weights.checkpoint import Checkpoint
    from effdet_deploy.pytorch.weights.origins.settings import Settings

    Shapes = dict[str, tuple[int, ...]]

_SHOWN = 10
_BOX_CODES = 4
_STEM = re.compile(r"backbone\.(conv1|conv_stem|stem)\b.*weight$")
"""The names of a backbone's first layers; if there are several, the first reads the picture."""
_COUNTER = ".num_batches_tracked"
"""A training counter that old checkpoints lack, and that this package never reads."""


def load_state(
    model: EfficientDet, state_dict: Mapping[str, Tensor], name: str, remedy: str = ""
) -> None:
    """Load weights into ``model``; all names and shapes must fit.

    Args:
        model: the model to load them into.
        state_dict: the weights with plain names.
        name: the source of the weights, for error messages.
        remedy: what to do if they do not fit; by default, the message suggests the number of
            classes or the variants that the weights look like.

    Raises:
        WeightsError: the weights are for pictures with other channels, or names are missing,
            unexpected or have other shapes; the message lists ten of each kind and their number.
    """
    config = model.config
    current = model.state_dict()
    wanted, given = _shapes(current), _shapes(state_dict)
    # A backbone's first convolution is the one that reads the picture.
    stem = next(key for key in wanted if len(wanted[key]) == 4)
    channels, of_config = given.get(stem, ())[1:2], wanted[stem][1:2]
    if channels and channels != of_config:
        raise WeightsError(
            f"The network of '{name}' takes pictures with {channels[0]} channels, but the "
            f"configuration of {config.name} says {of_config[0]}.",
            "Leave in_chans out of --config FILE.json: the weights decide it.",
        )
    grid, of_config = head_grid(state_dict), (config.num_anchors, config.num_levels)
    if grid is not None and grid != of_config:
        raise WeightsError(
            f"The heads of '{name}' are for {grid[0]} anchors per place on {grid[1]} levels, but "
            f"those of {config.name} are for {of_config[0]} anchors on {of_config[1]} levels.",
            remedy
            or "Set num_scales, aspect_ratios, min_level and max_level in --config FILE.json.",
        )
    problems = {
        "missing": [key for key in wanted if key not in given and not key.endswith(_COUNTER)],
        "unexpected": [key for key in given if key not in wanted],
        "of another shape": [
            f"{key} {list(given[key])} instead of {list(wanted[key])}"
            for key in wanted
            if key in given and given[key] != wanted[key]
        ],
    }
    counted = [
        f"{len(keys)} {kind} ({', '.join(keys[:_SHOWN])}"
        + (f" and {len(keys) - _SHOWN} more)" if len(keys) > _SHOWN else ")")
        for kind, keys in problems.items()
        if keys
    ]
    if counted:
        raise WeightsError(
            f"'{name}' does not fit {config.name} with {config.num_classes} classes: "
            f"{'; '.join(counted)}.",
            remedy or _remedy(config, state_dict),
        )
    counters = {key: current[key] for key in current.keys() - state_dict.keys()}
    model.load_state_dict({**counters, **state_dict}, strict=True)


def _shapes(state_dict: Mapping[str, Tensor], *, counters: bool = True) -> Shapes:
    return {
        key: tuple(value.shape)
        for key, value in state_dict.items()
        if counters or not key.endswith(_COUNTER)
    }


def _remedy(config: ModelConfig, state_dict: Mapping[str, Tensor]) -> str:
    variants = guess_variants(state_dict)
    classes = infer_num_classes(state_dict)
    if config.name in variants and classes != config.num_classes:
        return (
            f"The checkpoint has {classes} classes, but the model has {config.num_classes}: "
            f"pass --num-classes {classes}."
        )
    if config.name in variants:
        own = config.overrides_of(get_config(config.name)).keys() - {"num_classes", "image_size"}
        return f"The weights fit {config.name} unchanged: leave {', '.join(sorted(own))} out."
    if variants:
        more = f" --num-classes {classes}" if classes != config.num_classes else ""
        return (
            f"These look like the weights of {' or '.join(variants)} with {classes} classes: "
            f"pass --variant {variants[0]}{more}."
        )
    return "Name the variant and the config fields (--config) that the checkpoint was trained with."


def infer_num_classes(state_dict: Mapping[str, Tensor]) -> int | None:
    """Return the number of classes in the heads of ``state_dict``, or None without heads.

    Both predict layers have one group of outputs per anchor, and a box always has four outputs.
    """
    classes, boxes = (_predict_shape(state_dict, net) for net in ("class_net", "box_net"))
    if not classes or not boxes or boxes[0] % _BOX_CODES:
        return None
    return classes[0] * _BOX_CODES // boxes[0]


def infer_in_chans(state_dict: Mapping[str, Tensor]) -> int | None:
    """Return the number of channels of the pictures for these weights, or None without a stem."""
    stems = (each for name, each in state_dict.items() if _STEM.match(name) and each.dim() == 4)
    return next((int(each.shape[1]) for each in stems), None)


def head_grid(state_dict: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Return how many anchors per place of a map and how many levels the heads have, or None."""
    boxes = _predict_shape(state_dict, "box_net")
    levels = _level_count(state_dict)
    if not boxes or boxes[0] % _BOX_CODES or not levels:
        return None
    return boxes[0] // _BOX_CODES, levels


def _level_count(state_dict: Mapping[str, Tensor]) -> int:
    level_first = "box_net.bn_rep.0.0.weight" in state_dict
    pattern = r"box_net\.bn_rep\.(\d+)" if level_first else r"box_net\.bn_rep\.0\.(\d+)"
    return len({match[1] for key in state_dict if (match := re.match(pattern, key))})


def _predict_shape(state_dict: Mapping[str, Tensor], net: str) -> tuple[int, ...]:
    """Return the shape of a head's last convolution; empty without such a head."""
    convs = (state_dict.get(f"{net}.predict.{each}.weight") for each in ("conv_pw", "conv"))
    found = (tuple(conv.shape) for conv in convs if conv is not None)
    # Other tensors with these names are refused later, like all that do not fit.
    return next((shape for shape in found if len(shape) == 4 and all(shape)), ())


def guess_variants(state_dict: Mapping[str, Tensor]) -> list[str]:
    """Return the registered variants whose weights have exactly these names and shapes.

    There may be several, because some variants differ only in image size, anchors or normalization.
    Only variants that agree with the weights in a few facts, such as the number of levels, are
    built, without memory for their weights.
    """
    classes = infer_num_classes(state_dict)
    if not classes:
        return []
    facts, given = _facts_of_weights(state_dict), _shapes(state_dict, counters=False)
    channels = infer_in_chans(state_dict)
    pictures = {} if channels is None else {"in_chans": channels}
    found = []
    for name in list_models():
        config = get_config(name)
        if _facts_of_config(config) == facts:
            with torch.device("meta"):
                model = EfficientDet(config.replace({"num_classes": classes, **pictures}))
            if _shapes(model.state_dict(), counters=False) == given:
                found.append(name)
    return found


def _facts_of_config(config: ModelConfig) -> tuple[int, ...]:
    topology = fpn_topology(config.fpn_name, config.min_level, config.max_level)
    return (
        config.separable_conv,
        config.fpn_channels,
        config.fpn_cell_repeats,
        len(topology.nodes),
        config.box_class_repeats,
        config.num_levels,
        any(node.fusion not in UNWEIGHTED for node in topology.nodes),
        config.head_bn_level_first,
    )


def _facts_of_weights(state_dict: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Read the facts of :func:`_facts_of_config`, in its order, from names and shapes."""
    level_first = "box_net.bn_rep.0.0.weight" in state_dict

    def count(pattern: str) -> int:
        return len({match[1] for key in state_dict if (match := re.match(pattern, key))})

    return (
        "box_net.predict.conv_pw.weight" in state_dict,
        _predict_shape(state_dict, "box_net")[1],
        count(r"fpn\.cell\.(\d+)\."),
        count(r"fpn\.cell\.0\.fnode\.(\d+)\."),
        count(r"box_net\.conv_rep\.(\d+)\."),
        _level_count(state_dict),
        any(key.endswith(".edge_weights") for key in state_dict),
        level_first,
    )


def written_variant(
    checkpoint: Checkpoint, settings: Settings | None, variant: str | None
) -> tuple[str | None, tuple[str, ...]]:
    """Return the variant that is stated in a checkpoint or beside it.

    Settings inside the checkpoint are ignored if its weights fit the requested ``variant`` and do
    not fit the one in the settings.

    Returns:
        The variant or None, and a sentence if settings were ignored.
    """
    written = checkpoint.metadata.variant
    named = settings.variant if settings else None
    if settings and named and variant and settings.is_inside and named != resolve_name(variant):
        looks = guess_variants(checkpoint.state_dict)
        if resolve_name(variant) in looks and named not in looks:
            where = f"The settings in '{settings.source}'"
            return written, (f"{where} name {named}, which the weights do not fit.",)
    return written or named, ()


def agreed_variant(
    checkpoint: Checkpoint, written: str | None, settings: Settings | None, variant: str | None
) -> str:
    """Return the variant on which the option and the ``written`` variant agree.

    Raises:
        WeightsError: option and checkpoint disagree, or the settings contradict themselves.
        UsageError: neither the option nor the checkpoint names a variant.
    """
    both = settings.contradictions.get("variant") if settings else None
    if both and variant is None:
        raise WeightsError(
            f"The settings in '{checkpoint.name}' name the variants {both}.",
            "Choose one of them with --variant.",
        )
    if variant is None and written is None:
        looks = " or ".join(guess_variants(checkpoint.state_dict))
        raise UsageError(
            f"'{checkpoint.name}' does not say which variant it belongs to.",
            f"It looks like {looks}: pass --variant." if looks else "Pass --variant.",
        )
    names = {resolve_name(each) for each in (written, variant) if each is not None}
    if len(names) > 1:
        said = f"'{settings.source}' is for" if settings else f"'{checkpoint.name}' has weights of"
        raise WeightsError(
            f"{said} {resolve_name(written or '')}, but the requested variant is "
            f"{resolve_name(variant or '')}.",
            "Leave --variant out, or pass weights of that variant.",
        )
    return names.pop()
