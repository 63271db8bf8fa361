"""Models that are already in memory: ours, or effdet's with or without a bench around it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import UsageError
from effdet_deploy.pytorch.network.efficientdet import EfficientDet
from effdet_deploy.pytorch.network.registry import get_config
from effdet_deploy.pytorch.weights.fitting import load_state

if TYPE_CHECKING:
    from torch import nn

    from effdet_deploy.pytorch.network.config import ModelConfig

_SAME_MEANING = (
    "image_size",
    "num_classes",
    "min_level",
    "max_level",
    "num_scales",
    "anchor_scale",
    "pad_type",
    "act_type",
    "box_class_repeats",
    "fpn_channels",
    "fpn_cell_repeats",
    "separable_conv",
    "apply_resample_bn",
    "conv_bn_relu_pattern",
    "downsample_type",
    "upsample_type",
    "redundant_bias",
)
"""Fields that effdet's config and ours share in name and form."""
_OPTIONAL = (
    "backbone_name",
    "backbone_indices",
    "fpn_name",
    "head_act_type",
    "mean",
    "std",
    "fill_color",
)
"""The same, where effdet's config has them and they are not empty."""


def adopt_module(module: nn.Module) -> EfficientDet:
    """Return our network with the weights of ``module``, which is not changed.

    Args:
        module: our network; an ``effdet`` network, bench or EMA wrapper; or either in DataParallel.

    Raises:
        UsageError: the module is something else, or has parts that ours has not.
        WeightsError: its weights do not fit what its config says.
    """
    network = _unwrap(module)
    if isinstance(network, EfficientDet):
        return copy.deepcopy(network).cpu().float().eval()
    if not hasattr(network, "config") or not hasattr(network, "box_net"):
        raise UsageError(
            f"A {type(module).__name__} is neither an effdet-deploy nor an effdet model.",
            "Pass effdet_deploy.pytorch.network.create_model(...) or effdet.create_model(...).",
        )
    adopted = EfficientDet(_config_of(network))
    load_state(adopted, network.state_dict(), "a model in memory")
    return adopted.eval()


def _unwrap(module: nn.Module) -> Any:
    """Take off DataParallel (``module``), EMA (``module``) and effdet's benches (``model``)."""
    inner: Any = module
    while not isinstance(inner, EfficientDet):
        wrapped = getattr(inner, "module", None) or getattr(inner, "model", None)
        if wrapped is None:
            break
        inner = wrapped
    return inner


def _config_of(network: Any) -> ModelConfig:
    """Translate an effdet config; what ours lacks (loss, labels) matters in training only."""
    theirs = network.config
    if theirs.get("fpn_config"):
        raise UsageError(
            "This effdet model has an fpn_config of its own, which effdet-deploy does not know.",
            "Build it with an fpn_name, such as bifpn_fa.",
        )
    fields = {name: _plain(theirs[name]) for name in _SAME_MEANING}
    given = {name: theirs.get(name) for name in _OPTIONAL}
    if isinstance(fill := theirs.get("fill_color"), int):
        given["fill_color"] = (fill, fill, fill)
    return get_config(theirs.name).replace(
        fields
        | {name: _plain(value) for name, value in given.items() if value}
        | {
            "norm_eps": theirs.norm_kwargs["eps"],
            "aspect_ratios": tuple(map(_plain, theirs.aspect_ratios)),
            "head_bn_level_first": network.class_net.bn_level_first,
        }
    )


def _plain(value: Any) -> Any:
    return tuple(value) if not isinstance(value, str | int | float | bool) else value
