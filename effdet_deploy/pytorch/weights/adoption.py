"""From a module in memory to our network: what its configuration and its bench say."""

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
"""Fields of ours whose namesakes in effdet's config have another form, or stay the variant's."""
_COMPILED = "_orig_mod."
"""What ``torch.compile`` puts before the names of a part's weights."""
_QUANTIZED = (".quantized", ".qat", "torchao")
"""In the names of the modules that quantized layers are of."""
NAME = "a model in memory"
_UNDO = "Undo what was changed in it, or build it from a configuration that says so."


def adopt_module(given: GivenModule) -> tuple[EfficientDet, tuple[str, ...]]:
    """Return our network with the weights of a module, which is not changed.

    What ours cannot do is refused where the module's parts tell it; where only what it gives tells
    it, it has to be run.

    Returns:
        The network, and a sentence for each thing that was taken from the module and is not in its
        configuration.

    Raises:
        UsageError: the module has parts that ours has not.
        WeightsError: its weights do not fit its configuration; or its bench's anchors are those of
            none.
    """
    network = given.network
    _refuse_quantized(network)
    config = network.config if isinstance(network, EfficientDet) else _config_of(network)
    state = {key.replace(_COMPILED, ""): each for key, each in network.state_dict().items()}
    notes = [given.note] if given.note else []
    if config.in_chans != (usual := get_config(config.name).in_chans):
        notes.append(f"in_chans is {config.in_chans}: the first layer says so, not {usual}.")
    classes = infer_num_classes(state)
    if classes is not None and classes != config.num_classes:
        notes.append(f"num_classes is {classes}: the heads say so, not {config.num_classes}.")
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
            "Export it as it was before, and ask for INT8 in the graph: precision='int8'.",
        )


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
    # effdet's config has no such field; what it says of RGB is nothing to other pictures.
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
