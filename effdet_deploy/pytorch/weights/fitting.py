"""Does a checkpoint fit a model, and if not, what does it fit?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from effdet_deploy.errors import WeightsError
from effdet_deploy.pytorch.network.efficientdet import EfficientDet
from effdet_deploy.pytorch.network.registry import get_config, list_models
from effdet_deploy.pytorch.network.topology import fpn_topology

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from effdet_deploy.pytorch.network.config import ModelConfig

    Shapes = Mapping[str, tuple[int, ...]]

_SHOWN = 10
_COUNTER = ".num_batches_tracked"
"""A training counter that old checkpoints lack and that nothing here reads."""


def load_state(model: EfficientDet, state_dict: Mapping[str, Tensor], name: str) -> None:
    """Load weights into ``model``; every name and shape must be there and fit.

    Args:
        model: where to.
        state_dict: the weights under plain names.
        name: how to call the checkpoint in an error.

    Raises:
        WeightsError: missing, unexpected and misshapen names, ten of each and their counts; the
            class count or the variants they look like, where that can be told.
    """
    problem = describe_mismatch(model.config, _shapes(model.state_dict()), state_dict)
    if problem:
        cause, remedy = problem
        raise WeightsError(f"The checkpoint '{name}' does not fit {cause}", remedy)
    current = model.state_dict()
    counters = {key: current[key] for key in current.keys() - state_dict.keys()}
    model.load_state_dict({**counters, **state_dict}, strict=True)


def describe_mismatch(
    config: ModelConfig, wanted: Shapes, state_dict: Mapping[str, Tensor]
) -> tuple[str, str] | None:
    """Return cause and remedy where weights do not fit the shapes ``wanted``, else None."""
    given = _shapes(state_dict)
    missing = [key for key in wanted if key not in given and not key.endswith(_COUNTER)]
    unexpected = [key for key in given if key not in wanted]
    misshapen = [key for key in wanted if key in given and given[key] != wanted[key]]
    if not (missing or unexpected or misshapen):
        return None
    shaped = [f"{key} {list(given[key])} instead of {list(wanted[key])}" for key in misshapen]
    lists = {"missing": missing, "unexpected": unexpected, "of another shape": shaped}
    counted = "; ".join(_listed(kind, keys) for kind, keys in lists.items() if keys)
    return f"{config.name} with {config.num_classes} classes: {counted}.", _remedy(config, given)


def infer_num_classes(state_dict: Mapping[str, Tensor]) -> int | None:
    """Return how many classes the heads of ``state_dict`` score, or None where it has none.

    Both predict layers have one group of outputs an anchor, and a box is always four of them.
    """
    return _num_classes(_shapes(state_dict))


def guess_variants(state_dict: Mapping[str, Tensor]) -> list[str]:
    """Return the registered variants whose weights have exactly these names and shapes.

    Several variants differ only in image size, anchors or normalisation. Candidates are chosen by
    their configurations, and only those few are built, without memory for their weights.
    """
    return _fitting_variants(_shapes(state_dict))


def _shapes(state_dict: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state_dict.items()}


def _listed(kind: str, keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{len(keys)} {kind} ({', '.join(keys[:_SHOWN])}{more})"


def _remedy(config: ModelConfig, given: Shapes) -> str:
    variants = _fitting_variants(given)
    classes = _num_classes(given)
    if config.name in variants and classes != config.num_classes:
        return (
            f"The checkpoint has {classes} classes, the model {config.num_classes}: "
            f"pass --num-classes {classes}."
        )
    if variants:
        return (
            f"These look like the weights of {' or '.join(variants)} with {classes} classes: "
            f"pass --variant {variants[0]} --num-classes {classes}."
        )
    return "Name the variant and the config overrides that the checkpoint was trained with."


def _num_classes(given: Shapes) -> int | None:
    outputs = [
        _first(given, (f"{net}.predict.conv_pw.weight", f"{net}.predict.conv.weight"))
        for net in ("class_net", "box_net")
    ]
    if outputs[0] is None or outputs[1] is None or outputs[1][0] % 4:
        return None
    return outputs[0][0] * 4 // outputs[1][0]


def _first(given: Shapes, keys: Iterable[str]) -> tuple[int, ...] | None:
    return next((given[key] for key in keys if key in given), None)


def _fitting_variants(given: Shapes) -> list[str]:
    classes = _num_classes(given)
    if not classes:
        return []
    facts = _facts_of_weights(given)
    return [
        name
        for name in list_models()
        if _facts_of_config(get_config(name)) == facts and _fits(name, classes, given)
    ]


def _facts_of_config(config: ModelConfig) -> tuple[int | bool | None, ...]:
    topology = fpn_topology(config.fpn_name, config.min_level, config.max_level)
    return (
        config.separable_conv,
        config.fpn_channels,
        config.fpn_cell_repeats,
        len(topology.nodes),
        config.box_class_repeats,
        config.num_levels,
        any(node.fusion != "sum" for node in topology.nodes),
        config.head_bn_level_first,
    )


def _facts_of_weights(given: Shapes) -> tuple[int | bool | None, ...]:
    """Read the same facts, in the same order, off the names and shapes of weights."""
    predict = _first(given, ("box_net.predict.conv_pw.weight", "box_net.predict.conv.weight"))
    level_first = "box_net.bn_rep.0.0.weight" in given
    return (
        "box_net.predict.conv_pw.weight" in given,
        None if predict is None else predict[1],
        _count(given, r"fpn\.cell\.(\d+)\."),
        _count(given, r"fpn\.cell\.0\.fnode\.(\d+)\."),
        _count(given, r"box_net\.conv_rep\.(\d+)\."),
        _count(given, r"box_net\.bn_rep\.(\d+)" if level_first else r"box_net\.bn_rep\.0\.(\d+)"),
        any(key.endswith(".edge_weights") for key in given),
        level_first,
    )


def _count(given: Shapes, pattern: str) -> int:
    expression = re.compile(pattern)
    return len({match[1] for key in given if (match := expression.match(key))})


def _fits(name: str, num_classes: int, given: Shapes) -> bool:
    config = get_config(name).replace({"num_classes": num_classes})
    with torch.device("meta"):
        wanted = _shapes(EfficientDet(config).state_dict())
    return _without_counters(wanted) == _without_counters(given)


def _without_counters(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {key: shape for key, shape in shapes.items() if not key.endswith(_COUNTER)}
