"""The calls of modules in a network, in order, and which BatchNorm follows which convolution."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from effdet_deploy.pytorch.network.efficientdet import EfficientDet


@dataclass(frozen=True)
class Spot:
    """A place where a value is seen while the network runs: the n-th call of a module.

    ``is_input`` says whether the value is the call's input or its output.
    """

    module: str
    call: int
    is_input: bool = False


@dataclass(frozen=True)
class Call:
    """One call of a module that returned a tensor, in the order of the calls.

    If ``module`` is a BatchNorm that read the output of a convolution, ``conv`` is the call of this
    convolution.
    """

    spot: Spot
    module: nn.Module
    conv: Spot | None = None


def calls_of(network: EfficientDet) -> list[Call]:
    """Return the calls of one forward run, in order.

    The run uses the meta device, where tensors have shapes but no numbers, so it takes no time.
    """
    twin = copy.deepcopy(network).to("meta")
    names = {module: name for name, module in twin.named_modules()}
    counted: Counter[str] = Counter()
    calls: list[Call] = []
    made: dict[int, tuple[Call, Tensor]] = {}

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        conv = None
        if isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in made:
            maker = made[id(inputs[0])][0]
            conv = maker.spot if isinstance(maker.module, nn.Conv2d) else None
        call = Call(Spot(names[module], counted[names[module]]), module, conv)
        counted[names[module]] += 1
        calls.append(call)
        # Containers and Identity return the result of another module. The tensor is kept so that
        # its id cannot be given to another tensor.
        if not any(module.children()) and not isinstance(module, nn.Identity):
            made[id(output)] = (call, output)

    for module in names:
        module.register_forward_hook(record)
    dtype = next(twin.parameters()).dtype
    config = network.config
    twin(torch.empty(1, config.in_chans, *config.image_size, device="meta", dtype=dtype))
    return calls
