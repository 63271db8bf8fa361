"""Finding where a module in memory differs from the network that its configuration describes.

``ours`` is our copy of the module's network, made from its configuration and weights; ``theirs`` is
the network in memory, with all changes that were made to it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from effdet_deploy.pytorch.reference import normalize
from effdet_deploy.pytorch.weights.given import GivenModule, hooks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import InputSpec
    from effdet_deploy.pytorch.weights.loading import LoadedModel

    Seen = dict[str, list[Tensor]]

_SAMPLED = 4096
"""How many values of a layer's output are kept: enough to tell layers apart, with little memory."""
_RELATIVE = 1e-3
"""The difference that counts, as a share of a layer's largest value: larger than rounding errors,
smaller than the effect of a change."""


@dataclass(frozen=True)
class Hooked:
    """A module with hooks that our copy does not have.

    Attributes:
        name: the path of the module.
        kinds: the kinds of its hooks.
    """

    name: str
    kinds: tuple[str, ...]


def hooks_in(source: LoadedModel) -> list[Hooked]:
    """Return the modules in memory that have hooks which our copy lacks; both have timm's hooks."""
    given = source.given
    if given is None:
        return []
    ours = {name: hooks_of(each) for name, each in source.model.named_modules()}
    found = []
    for name, each in given.module.named_modules():
        inside = name.removeprefix(given.path).removeprefix(".")
        kinds = [kind for kind in hooks_of(each) if kind not in ours.get(inside, ())]
        if kinds:
            found.append(Hooked(name or type(each).__name__, tuple(kinds)))
    return found


def first_departure(source: LoadedModel, spec: InputSpec, picture: NDArray[np.uint8]) -> str:
    """Name the first layer whose output differs from the output in our copy, and the reason.

    Args:
        source: a module in memory and our copy of its network.
        spec: the description of the network's input.
        picture: RGB uint8 ``[H,W,3]`` in the input's size.

    Returns:
        A sentence, or an empty string if no layer is to blame.
    """
    given = source.given
    if given is None:
        return ""
    pixels = torch.from_numpy(normalize(picture[None], spec)).float()
    with torch.no_grad():
        ours = _sampled(source.model, lambda: source.model(pixels))

    def departing(run: Callable[[], Any]) -> str | None:
        theirs = _sampled(given.network, run)
        return next((e for e in theirs if e in ours and _differ(theirs[e], ours[e])), None)

    name = departing(lambda: given.run(pixels))
    if name is None:
        return ""
    if given.path and departing(lambda: GivenModule(given.network, "").run(pixels)) is None:
        return (
            f"Its network alone, '{given.path}', gives the right results: the difference comes "
            f"from what {type(given.module).__name__} does around the network."
        )
    layers = dict(given.network.named_modules())
    # If a hook changes the inputs of a module, the modules inside it are the first that differ.
    around = [name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)]
    hooked = (each for each in around if "forward pre-hook" in hooks_of(layers[each]))
    name = next(hooked, name)
    reason = _reason(layers[name], source.model.get_submodule(name))
    return f"The first layer that differs is {name}{reason}."


def _sampled(network: nn.Module, run: Callable[[], Any]) -> Seen:
    """Run a network and keep some output values of every layer, by name, in the order of calls."""
    seen: Seen = {}

    def keep(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            flat = output.detach().float().cpu().flatten()
            step = max(1, len(flat) // _SAMPLED)
            # A copy is kept, because an in-place activation would change the original.
            seen.setdefault(name, []).append(flat[::step].clone())

    with contextlib.ExitStack() as stack:
        for name, module in network.named_modules():
            stack.callback(module.register_forward_hook(partial(keep, name)).remove)
        run()
    return seen


def _differ(theirs: list[Tensor], ours: list[Tensor]) -> bool:
    """Return whether a call of a layer gave an output that no call of its copy gave.

    The order of the calls may differ: a head is called for every level and repeat.
    """
    return not all(any(_same(one, other) for other in ours) for one in theirs)


def _same(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    largest = max(float(other.abs().max()), 1.0)
    return float((one - other).abs().max()) <= _RELATIVE * largest


def _reason(layer: nn.Module, copied: nn.Module) -> str:
    """Say in a clause what a layer has that its copy lacks; empty if they look equal."""
    hooks = [kind for kind in hooks_of(layer) if kind not in hooks_of(copied)]
    if hooks:
        return f", which has a {hooks[0]}"
    for inside, mine in copied.named_modules():
        if any(mine.children()):
            continue
        there = dict(layer.named_modules()).get(inside)
        if there is not None and _described(there) != _described(mine):
            return f", which has {_described(there)} in place of {_described(mine)}"
    return ""


def _described(module: nn.Module) -> str:
    return f"{type(module).__name__}({module.extra_repr()})"
