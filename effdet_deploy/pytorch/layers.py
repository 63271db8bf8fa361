"""The layers of eager PyTorch, under the names that they have in our ONNX files.

The exported graph is folded: a BatchNorm lives in the convolution before it, and the heads have a
convolution for each level. What is compared is what both sides compute: the output of a BatchNorm
stands for its convolution, and the calls of a head, which is shared by all levels, for the levels.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from torch import Tensor, nn

from effdet_deploy.artifact.spec import HEAD_OUTPUTS
from effdet_deploy.pytorch.reference import flatten_levels, normalize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import InputSpec
    from effdet_deploy.pytorch.network import EfficientDet

_HEADS = ("class_net", "box_net")


class NamedLayer(Protocol):
    """What the exported graph says of a layer: see ``GraphLayer``, which reads it."""

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


@dataclass(frozen=True)
class _Spot:
    """Where a value is seen while the network runs: what the n-th call of a module takes or gives.

    ``is_input`` says which of the two.
    """

    module: str
    call: int
    is_input: bool = False


@dataclass(frozen=True)
class _Call:
    """One call of a module that returned a tensor, in the order of the calls.

    ``conv`` is the call of the convolution whose output a BatchNorm took, if it did.
    """

    spot: _Spot
    module: nn.Module
    conv: _Spot | None = None


class EagerLayers:
    """The layers of a network in eager PyTorch, named as ``layers`` of its exported graph are.

    Args:
        network: our model; it is copied and not changed.
        spec: of the input of the exported graph.
        layers: of the exported graph.
    """

    def __init__(
        self, network: EfficientDet, spec: InputSpec, layers: Sequence[NamedLayer]
    ) -> None:
        self._network = copy.deepcopy(network).cpu().float().eval()
        self._input = dataclasses.replace(spec, kind="uint8", channel_order="rgb")
        self._spots = _align(_calls(self._network), layers, self._network)
        self._joined = _joined(network)

    @property
    def names(self) -> set[str]:
        """The layers that can be read."""
        return set(self._spots) | set(self._joined)

    def read(
        self, names: Sequence[str], pictures: Sequence[NDArray[np.uint8]]
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield what the named layers give for each picture, by name."""
        for picture in pictures:
            pixels = torch.from_numpy(normalize(picture[None], self._input)).float()
            spots = {name: self._spots[name] for name in names if name in self._spots}
            with torch.no_grad(), _Watch(self._network, set(spots.values())) as seen:
                heads = self._network(pixels)
            values = {name: seen.values[spot] for name, spot in spots.items()}
            for name in self._joined.keys() & set(names):
                head, channels = self._joined[name]
                values[name] = flatten_levels(heads[head], channels)
            yield values


def _joined(network: EfficientDet) -> dict[str, tuple[int, int]]:
    """Map each node that holds all levels of a head to the head and the length of its rows."""
    found = {}
    for index, (net, head) in enumerate(zip(_HEADS, HEAD_OUTPUTS, strict=True)):
        outputs = network.config.num_classes if index == 0 else 4
        found[f"{head}.reshape"] = (index, outputs)
        found[f"{net}.predict.conv_pw.gemm"] = (index, outputs * network.config.num_anchors)
    return found


class _Watch:
    """Keeps a copy of what is to be seen at the wanted spots, while it is entered."""

    def __init__(self, network: nn.Module, wanted: set[_Spot]) -> None:
        self.values: dict[_Spot, NDArray[Any]] = {}
        self._network = network
        self._wanted = wanted
        self._calls: Counter[str] = Counter()
        self._handles: list[Any] = []

    def __enter__(self) -> Self:
        for name in {spot.module for spot in self._wanted}:
            self._watch(name, self._network.get_submodule(name))
        return self

    def __exit__(self, *_error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _watch(self, name: str, module: nn.Module) -> None:
        def before(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs and isinstance(inputs[0], Tensor):
                self._keep(_Spot(name, self._calls[name], is_input=True), inputs[0])

        def after(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor):
                self._keep(_Spot(name, self._calls[name]), output)
                self._calls[name] += 1

        self._handles += [
            module.register_forward_pre_hook(before),
            module.register_forward_hook(after),
        ]

    def _keep(self, spot: _Spot, tensor: Tensor) -> None:
        if spot in self._wanted:
            # Copied: an activation that works in place would change it afterwards.
            self.values[spot] = tensor.detach().clone().numpy()


def _calls(network: EfficientDet) -> list[_Call]:
    """Return the calls of one forward run.

    The run is on the meta device, where tensors have shapes and no numbers, and takes no time.
    """
    twin = copy.deepcopy(network).to("meta")
    calls: list[_Call] = []
    made: dict[int, tuple[_Call, Tensor]] = {}
    counted: Counter[str] = Counter()

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not isinstance(output, Tensor):
                return
            maker = made[id(inputs[0])][0] if id(inputs[0]) in made else None
            follows = isinstance(module, nn.BatchNorm2d) and maker is not None
            conv = maker.spot if follows and maker and _is_conv(maker.module) else None
            call = _Call(_Spot(name, counted[name]), module, conv)
            counted[name] += 1
            calls.append(call)
            # Containers and Identity hand on what another module made. The tensor is kept so that
            # its id cannot be given to another one.
            if not any(module.children()) and not isinstance(module, nn.Identity):
                made[id(output)] = (call, output)

        return hook

    for name, module in twin.named_modules():
        module.register_forward_hook(watch(name))
    twin(torch.empty(1, 3, *network.config.image_size, device="meta"))
    return calls


def _is_conv(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d)


def _align(
    calls: list[_Call], layers: Sequence[NamedLayer], network: EfficientDet
) -> dict[str, _Spot]:
    """Return where each layer of the graph is seen in eager PyTorch, as far as it is."""
    nodes: dict[str, list[NamedLayer]] = defaultdict(list)
    for layer in layers:
        nodes[layer.module].append(layer)
    folded = {call.conv for call in calls if call.conv}
    seen: dict[str, list[_Spot]] = defaultdict(list)
    for call in calls:
        for path, spot in _graph_paths(call, folded, network):
            seen[path].append(spot)
    return {
        layer.name: spot
        for path, spots in seen.items()
        for layer, spot in zip(_outputs_of(nodes[path], len(spots)), spots, strict=False)
    }


def _graph_paths(
    call: _Call, folded: set[_Spot], network: EfficientDet
) -> Iterator[tuple[str, _Spot]]:
    """Yield the module path in the graph that shows what this call gives, and where to see it."""
    spot = call.spot
    if spot in folded:
        return
    head, _, inside = spot.module.partition(".")
    if head in _HEADS and inside == "act":
        repeat, _ = _repeat_and_level(getattr(network, head), spot.call)
        yield f"{head}.conv_rep.{repeat}.act", spot
    elif head in _HEADS and call.conv is not None:
        repeat = int(call.conv.module.split(".")[2])
        yield f"{head}.conv_rep.{repeat}.level.{call.conv.call}", spot
    elif call.conv is not None and hasattr(call.module, "act"):
        # timm's BatchNormAct2d: in the graph its activation stands in its place.
        yield call.conv.module, _Spot(f"{spot.module}.act", spot.call, is_input=True)
        yield spot.module, spot
    else:
        yield (call.conv.module if call.conv else spot.module), spot


def _repeat_and_level(head: Any, call: int) -> tuple[int, int]:
    """Return which repeat and level the n-th call of a head's activation belongs to."""
    if head.level_first:
        level, repeat = divmod(call, len(head.conv_rep))
        return repeat, level
    repeat, level = divmod(call, head.num_levels)
    return repeat, level


def _outputs_of(nodes: list[NamedLayer], calls: int) -> list[NamedLayer]:
    """Return the node that gives the module's result, once for each call.

    Of the nodes of one call it is the last; nodes of one operator are numbered over all calls.
    """
    if not nodes:
        return []
    same = [node for node in nodes if node.operator == nodes[-1].operator]
    per_call, rest = divmod(len(same), calls)
    return [] if rest or not per_call else same[per_call - 1 :: per_call]
