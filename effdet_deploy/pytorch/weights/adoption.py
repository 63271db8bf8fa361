"""Models that are already in memory: ours, or effdet's with or without a bench around it."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import UsageError
from effdet_deploy.pytorch.network.config import ModelConfig
from effdet_deploy.pytorch.network.efficientdet import EfficientDet
from effdet_deploy.pytorch.network.registry import get_config
from effdet_deploy.pytorch.weights.fitting import load_state

if TYPE_CHECKING:
    from torch import nn

_READ_OTHERWISE = ("name", "url", "fpn_name", "head_act_type", "aspect_ratios", "fill_color")
"""Fields of ours whose namesakes in effdet's config have another form, or stay the variant's."""


def adopt_module(module: nn.Module) -> EfficientDet:
    """Return our network with the weights of ``module``, which is not changed.

    Args:
        module: our network; an ``effdet`` network, bench or EMA wrapper; or either in DataParallel.

    Raises:
        UsageError: the module is something else, or has parts that ours has not.
        WeightsError: its weights do not fit what its config says.
    """
    network: Any = module
    # DataParallel and EMA hold it as ``module``, effdet's benches as ``model``.
    while not isinstance(network, EfficientDet):
        inner = getattr(network, "module", None) or getattr(network, "model", None)
        if inner is None:
            break
        network = inner
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


def _config_of(network: Any) -> ModelConfig:
    """Translate an effdet config; what ours lacks (loss, labels) matters in training only."""
    theirs = network.config
    if theirs.get("fpn_config"):
        raise UsageError(
            "This effdet model has an fpn_config of its own, which effdet-deploy does not know.",
            "Build it with an fpn_name, such as bifpn_fa.",
        )
    fields = {
        each.name: _plain(theirs[each.name])
        for each in dataclasses.fields(ModelConfig)
        if each.name not in _READ_OTHERWISE and theirs.get(each.name) is not None
    }
    fields |= {name: theirs[name] for name in ("fpn_name", "head_act_type") if theirs.get(name)}
    if (fill := theirs.get("fill_color")) is not None:
        fields["fill_color"] = (fill, fill, fill) if isinstance(fill, int) else _plain(fill)
    return get_config(theirs.name).replace(
        fields
        | {
            "norm_eps": theirs.norm_kwargs["eps"],
            "aspect_ratios": tuple(map(_plain, theirs.aspect_ratios)),
            "head_bn_level_first": network.class_net.bn_level_first,
        }
    )


def _plain(value: Any) -> Any:
    return tuple(value) if not isinstance(value, str | int | float | bool) else value
