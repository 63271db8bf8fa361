"""From a module in memory to our network, by its configuration, its weights and its bench.

A bench is effdet's wrapper around a network; the bench decodes boxes and runs NMS.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from effdet_deploy.errors import UsageError
from effdet_deploy.pytorch.network.config import ModelConfig
from effdet_deploy.pytorch.network.efficientdet import EfficientDet
from effdet_deploy.pytorch.network.registry import get_config
from effdet_deploy.pytorch.weights.anchor_evidence import with_anchors
from effdet_deploy.pytorch.weights.fitting import (
    head_grid,
    infer_in_chans,
    infer_num_classes,
    load_state,
)

if TYPE_CHECKING:
    from torch import nn

    from effdet_deploy.pytorch.weights.given import GivenModule

_READ_OTHERWISE = ("name", "url", "fpn_name", "head_act_type", "aspect_ratios", "fill_color")
"""Fields of ModelConfig that effdet's config writes otherwise, or that the variant decides."""
_COMPILED = "_orig_mod."
"""The prefix that ``torch.compile`` puts before the names of weights."""
_QUANTIZED = (".quantized", ".qat", "torchao")
"""Parts of the names of Python modules that define quantized layers."""
NAME = "a model in memory"
_UNDO = "Undo what changed its layers, or build it from a configuration that has these layers."


def adopt_module(given: GivenModule) -> tuple[EfficientDet, tuple[str, ...]]:
    """Make our network with the weights of a module; the module is not changed.

    Changes that our network cannot have are refused if the module's parts show them; other changes
    only show when the module is run.

    Returns:
        The network, and a sentence per value that was taken from the module's weights and not from
        its configuration.

    Raises:
        UsageError: the module has parts that our network lacks.
        WeightsError: its weights do not fit its configuration, or no configuration has its bench's
            anchors.
    """
    network = given.network
    _refuse_quantized(network)
    config = network.config if isinstance(network, EfficientDet) else _config_of(network)
    state = {key.replace(_COMPILED, ""): each for key, each in network.state_dict().items()}
    notes = [given.note] if given.note else []
    if config.in_chans != (usual := get_config(config.name).in_chans):
        notes.append(
            f"in_chans is {config.in_chans}, taken from the first layer; the variant's own is "
            f"{usual}."
        )
    classes = infer_num_classes(state)
    if classes is not None and classes != config.num_classes:
        notes.append(
            f"num_classes is {classes}, taken from the heads; the module's configuration says "
            f"{config.num_classes}."
        )
        config = config.replace({"num_classes": classes})
    if given.bench is not None:
        boxes = given.bench.anchors.boxes.detach().cpu().numpy()
        config, said = with_anchors(config, boxes, (), NAME, head_grid(state))
        notes += said
    adopted = EfficientDet(config)
    load_state(adopted, state, NAME, _UNDO)
    return adopted.eval(), tuple(notes)


def _refuse_quantized(network: nn.Module) -> None:
    found = [
        (name, type(each).__name__)
        for name, each in network.named_modules()
        if any(part in type(each).__module__ for part in _QUANTIZED)
    ]
    found += [
        (name, type(each.data).__name__)
        for name, each in network.named_parameters()
        if each.is_quantized or type(each.data) is not torch.Tensor
    ]
    if found:
        name, kind = found[0]
        raise UsageError(
            f"The model in memory is quantized: {name} is a {kind}.",
            "Export the model before quantization, with precision='int8'.",
        )


def _config_of(network: Any) -> ModelConfig:
    """Translate an effdet config; fields that ours lacks (loss, labels) only matter in training."""
    theirs = network.config
    if theirs.get("fpn_config"):
        raise UsageError(
            "This effdet model has its own fpn_config, which effdet-deploy does not know.",
            "Build it with an fpn_name, such as bifpn_fa.",
        )
    fields = {
        each.name: _plain(theirs[each.name])
        for each in dataclasses.fields(ModelConfig)
        if each.name not in _READ_OTHERWISE and theirs.get(each.name) is not None
    }
    fields |= {name: theirs[name] for name in ("fpn_name", "head_act_type") if theirs.get(name)}
    # effdet's config lacks in_chans; its mean and std for RGB do not apply to other pictures.
    channels = infer_in_chans(network.state_dict()) or 3
    if channels != 3:
        fields = {name: each for name, each in fields.items() if name not in ("mean", "std")}
        fields["in_chans"] = channels
    elif (fill := theirs.get("fill_color")) is not None:
        fields["fill_color"] = (fill, fill, fill) if isinstance(fill, int) else _plain(fill)
    level_first = getattr(network.class_net, "bn_level_first", False)
    return get_config(theirs.name).replace(
        fields
        | {
            "norm_eps": theirs.norm_kwargs["eps"],
            "aspect_ratios": tuple(map(_plain, theirs.aspect_ratios)),
            "head_bn_level_first": level_first,
        }
    )


def _plain(value: Any) -> Any:
    return tuple(value) if not isinstance(value, str | int | float | bool) else value
