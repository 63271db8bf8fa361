"""The outputs of layers in eager PyTorch, under the names that the layers have in our ONNX files.

The exported graph is folded: a BatchNorm is part of the convolution before it, and the heads have
one convolution per level. So a convolution of the graph is compared with the BatchNorm that follows
it in eager PyTorch, and a convolution of a level with one call of the head, which all levels share.
If the graph's convolution also contains the fusion weight of its map, the value in eager PyTorch is
multiplied by this weight. A :class:`Spot` is the input or the output of one call of a module.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from effdet_deploy.artifact.spec import HEAD_OUTPUTS
from effdet_deploy.pytorch.network.blocks import last_conv
from effdet_deploy.pytorch.network.calls import Spot, calls_of
from effdet_deploy.pytorch.network.pyramid import absorbed_weights
from effdet_deploy.pytorch.reference import flatten_levels, normalize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import InputSpec
    from effdet_deploy.pytorch.network import EfficientDet
    from effdet_deploy.pytorch.network.calls import Call

_HEADS = ("class_net", "box_net")


class NamedLayer(Protocol):
    """A layer of the exported graph; ``onnxgraph.layers.GraphLayer`` has these properties."""

    @property
    def name(self) -> str:
        """The name: module path and role."""
        ...

    @property
    def module(self) -> str:
        """The module path."""
        ...

    @property
    def operator(self) -> str:
        """The role: the ONNX operator in lower case."""
        ...

    @property
    def value(self) -> str:
        """The tensor that the layer makes."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]:
        """The tensors that the layer reads."""
        ...


class EagerLayers:
    """The layers of a network in eager PyTorch, named as in its exported graph.

    Args:
        network: our model; it is copied and not changed.
        spec: the input of the exported graph.
        layers: the layers of the exported graph.
    """

    def __init__(
        self, network: EfficientDet, spec: InputSpec, layers: Sequence[NamedLayer]
    ) -> None:
        self._network = copy.deepcopy(network).cpu().float().eval()
        # Pictures are passed as they are; the graph's input kind changes no layer.
        self._input = dataclasses.replace(spec, kind="uint8", channel_order="rgb")
        self._spots = _spots_of(self._network, layers)
        self._weights = _absorbed(self._network)
        self._modules = {layer.name: layer.module for layer in layers}
        # Node that holds all levels of a head → the head's number, and the length of its rows.
        self._joined: dict[str, tuple[int, int]] = {}
        outputs = (network.config.num_classes, 4)
        for index, (net, head) in enumerate(zip(_HEADS, HEAD_OUTPUTS, strict=True)):
            of_position = outputs[index] * network.config.num_anchors
            self._joined[f"{head}.reshape"] = (index, outputs[index])
            self._joined[f"{net}.predict.conv_pw.gemm"] = (index, of_position)

    @property
    def names(self) -> set[str]:
        """The names of the layers whose outputs can be read."""
        return set(self._spots) | set(self._joined)

    def read(
        self, names: Sequence[str], pictures: Sequence[NDArray[np.uint8]]
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """For every picture, yield the outputs of the named layers, by the layers' names."""
        spots = {name: self._spots[name] for name in names if name in self._spots}
        for picture in pictures:
            pixels = torch.from_numpy(normalize(picture[None], self._input)).float()
            with torch.no_grad(), _watched(self._network, set(spots.values())) as seen:
                heads = self._network(pixels)
            values = {
                name: seen[spot] * np.float32(self._weights.get(self._modules[name], 1.0))
                for name, spot in spots.items()
            }
            for name in self._joined.keys() & set(names):
                head, channels = self._joined[name]
                values[name] = flatten_levels(heads[head], channels)
            yield values


@contextlib.contextmanager
def _watched(network: nn.Module, wanted: set[Spot]) -> Iterator[dict[Spot, NDArray[Any]]]:
    """Collect copies of the values at the wanted spots while the network runs inside the block."""
    seen: dict[Spot, NDArray[Any]] = {}
    calls: Counter[str] = Counter()

    def keep(spot: Spot, tensor: Tensor) -> None:
        if spot in wanted:
            # A copy is kept, because an in-place activation would change the original.
            seen[spot] = tensor.detach().clone().numpy()

    def before(name: str, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            keep(Spot(name, calls[name], is_input=True), inputs[0])

    def after(name: str, _module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            keep(Spot(name, calls[name]), output)
            calls[name] += 1

    with contextlib.ExitStack() as stack:
        for name in {spot.module for spot in wanted}:
            module = network.get_submodule(name)
            stack.callback(module.register_forward_pre_hook(partial(before, name)).remove)
            stack.callback(module.register_forward_hook(partial(after, name)).remove)
        yield seen


def _spots_of(network: EfficientDet, layers: Sequence[NamedLayer]) -> dict[str, Spot]:
    """Return the spots in eager PyTorch by layer of the graph; a layer may have no spot."""
    nodes: dict[str, list[NamedLayer]] = defaultdict(list)
    for layer in layers:
        nodes[layer.module].append(layer)
    calls = calls_of(network)
    folded = {call.conv for call in calls if call.conv}
    seen: dict[str, list[Spot]] = defaultdict(list)
    for call in calls:
        if call.spot not in folded:
            for path, spot in _graph_paths(call, network):
                seen[path].append(spot)
    found: dict[str, Spot] = {}
    for path, spots in seen.items():
        if not nodes[path]:
            continue
        # The last node of a call gives the module's result; nodes with the same operator are
        # numbered over all calls.
        same = [each for each in nodes[path] if each.operator == nodes[path][-1].operator]
        per_call, left_over = divmod(len(same), len(spots))
        if per_call and not left_over:
            results = same[per_call - 1 :: per_call]
            found |= {layer.name: spot for layer, spot in zip(results, spots, strict=True)}
        if len(spots) == 1 and (reader := _reader_inside(nodes[path][-1], layers)) is not None:
            # A submodule reads this node, so the node is compared with the submodule's input.
            found[nodes[path][-1].name] = Spot(reader, 0, is_input=True)
    return found


def _reader_inside(layer: NamedLayer, layers: Sequence[NamedLayer]) -> str | None:
    """Return the submodule in the module of ``layer`` that reads the layer's output, if any."""
    inside = f"{layer.module}."
    readers = (e.module for e in layers if e.module.startswith(inside) and layer.value in e.inputs)
    return next(readers, None)


def _absorbed(network: EfficientDet) -> dict[str, float]:
    """Map the paths of the graph's convolutions that contain a fusion weight to this weight."""
    paths = {module: name for name, module in network.named_modules()}
    return {
        paths[last_conv(network.fpn.get_submodule(name))]: combine.fusion_weights()[position]
        for name, (combine, position) in absorbed_weights(network.fpn).items()
    }


def _graph_paths(call: Call, network: EfficientDet) -> Iterator[tuple[str, Spot]]:
    """Yield pairs: a module of the graph, and the spot where this call shows its result."""
    spot = call.spot
    net, _, inside = spot.module.partition(".")
    if net in _HEADS and inside == "act":
        head: Any = getattr(network, net)
        in_level, in_repeat = spot.call % len(head.conv_rep), spot.call // head.num_levels
        yield f"{net}.conv_rep.{in_level if head.level_first else in_repeat}.act", spot
    elif net in _HEADS and call.conv is not None:
        repeat = int(call.conv.module.split(".")[2])
        yield f"{net}.conv_rep.{repeat}.level.{call.conv.call}", spot
    elif call.conv is not None and hasattr(call.module, "act"):
        # In the graph, only the activation is left of timm's BatchNormAct2d.
        yield call.conv.module, Spot(f"{spot.module}.act", spot.call, is_input=True)
        yield spot.module, spot
    else:
        yield (call.conv.module if call.conv else spot.module), spot
