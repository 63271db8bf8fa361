"""Models that are already in memory: ours, or effdet's with or without a bench around it."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import UsageError
from effdet_deploy.model.network import EfficientDet
from effdet_deploy.model.registry import get_config

if TYPE_CHECKING:
    from torch import nn

    from effdet_deploy.model.config import ModelConfig

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


def adopt_module(module: nn.Module) -> EfficientDet:
    """Return our network with the weights of ``module``, which is not changed.

    Args:
        module: our network; an ``effdet`` network, bench or EMA wrapper; or either in DataParallel.

    Raises:
        UsageError: the module is something else.
    """
    network = _unwrap(module)
    if isinstance(network, EfficientDet):
        return copy.deepcopy(network).eval()
    if not hasattr(network, "config") or not hasattr(network, "box_net"):
        raise UsageError(
            f"A {type(module).__name__} is neither an effdet-deploy nor an effdet model.",
            "Pass effdet_deploy.model.create_model(...) or effdet.create_model(...).",
        )
    adopted = EfficientDet(_config_of(network))
    adopted.load_state_dict(network.state_dict())
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
    fields = {name: _plain(theirs[name]) for name in _SAME_MEANING}
    ratios = [
        tuple(ratio) if not isinstance(ratio, float | int) else _square_root_pair(ratio)
        for ratio in theirs.aspect_ratios
    ]
    optional = {"fpn_name": theirs.fpn_name, "head_act_type": theirs.head_act_type}
    return get_config(theirs.name).replace(
        fields
        | {name: value for name, value in optional.items() if value}
        | {
            "aspect_ratios": tuple(ratios),
            "head_bn_level_first": network.class_net.bn_level_first,
        }
    )


def _plain(value: Any) -> Any:
    return tuple(value) if not isinstance(value, str | int | float | bool) else value


def _square_root_pair(ratio: float) -> tuple[float, float]:
    """Return effdet's reading of a single number: width √r, height 1/√r."""
    return math.sqrt(ratio), 1 / math.sqrt(ratio)
