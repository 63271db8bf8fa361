"""A module that is already in memory, and how it is run with all changes that were made to it.

Weights can be copied, but hooks, wrappers and changed layers cannot. Therefore the module itself is
run beside our copy, and an artifact is compared with the module's results.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from effdet_deploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    Levels = list[Tensor]

_PARTS = {"backbone", "fpn", "class_net", "box_net"}
"""The parts of effdet's and our networks."""
_PASSING_ON = (
    *("DataParallel", "DistributedDataParallel", "OptimizedModule"),
    *("AveragedModel", "ModelEmaV2", "ModelEmaV3"),
)
"""Wrappers of torch and timm that pass their inputs on to a module, and matter only in training or
for speed."""
_WRAPPER_ERRORS = (
    *(RuntimeError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError),
    *(AssertionError, NotImplementedError, OSError),
)
"""The exceptions that a wrapper's code may raise when it gets only pictures."""
_ROW = 6
"""The number of values in a detection of effdet's benches, its wrappers with NMS: x1, y1, x2, y2,
score, class from 1."""


@dataclass(frozen=True, eq=False)
class GivenModule:
    """A module, and the network inside it.

    Attributes:
        module: the module to run, without wrappers that only pass on their inputs.
        path: the path of the network in ``module``; empty if it is the module itself.
        bench: effdet's bench in ``module``, which holds anchors; None without a bench.
        note: what was changed to run it; empty without changes.
    """

    module: nn.Module
    path: str
    bench: Any = None
    note: str = ""

    @property
    def network(self) -> Any:
        """The network inside the module: effdet's or ours."""
        return self.module.get_submodule(self.path)

    def run(self, pixels: Tensor) -> tuple[Levels, Levels, Tensor | None]:
        """Run the module in evaluation mode, without gradients, and restore its state.

        Args:
            pixels: normalized images ``[N,3,H,W]``.

        Returns:
            Class logits and box codes of every level, and detections ``[N,D,6]`` if there is a
            bench.

        Raises:
            UsageError: the module needs other inputs than pictures, or returns something else.
        """
        seen: list[Any] = []
        watched = self.network.register_forward_hook(lambda *call: seen.append(call[-1]))
        first = next(self.network.parameters())
        try:
            with (
                _evaluating(self.module),
                torch.no_grad(),
                torch.compiler.set_stance("force_eager"),
            ):
                given = self._predict(pixels.to(first.device, first.dtype))
        except _WRAPPER_ERRORS as error:
            message = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise UsageError(
                f"The {type(self.module).__name__} in memory cannot be run on pictures of "
                f"{pixels.shape[-2]}x{pixels.shape[-1]} ({message}).",
                self._instead or "Make it run on pictures alone.",
            ) from error
        finally:
            watched.remove()
        rows = None
        if isinstance(given, Tensor) and given.ndim == 3 and given.shape[-1] == _ROW and seen:
            given, rows = seen[-1], given.float().cpu()
        match given:
            case [[*logits], [*codes]] if all(
                isinstance(each, Tensor) for each in (*logits, *codes)
            ):
                return logits, codes, rows
        raise UsageError(
            f"The {type(self.module).__name__} in memory gives neither effdet's class and box "
            "outputs nor rows of six numbers.",
            self._instead or "Make it return one of these two.",
        )

    @property
    def _instead(self) -> str:
        inner = self.path.partition(".")[0]
        return f"Pass its '{inner}' instead." if inner else ""

    def _predict(self, pixels: Tensor) -> Any:
        bench: Any = type(self.module)
        for kind in bench.__mro__:
            if kind.__name__ == "DetBenchTrain" and bench.forward is kind.forward:
                # DetBenchTrain needs true boxes for its loss, but has what DetBenchPredict uses.
                predicting = vars(sys.modules[kind.__module__])["DetBenchPredict"]
                return predicting.forward(self.module, pixels)
        return self.module(pixels)


def find_network(module: nn.Module) -> GivenModule:
    """Find the one network in ``module``.

    Raises:
        UsageError: there is no network, or there are several.
    """
    outer = module
    while type(outer).__name__ in _PASSING_ON and not hooks_of(outer):
        outer = next(outer.children())
    networks = [
        name
        for name, each in outer.named_modules()
        if {child for child, _ in each.named_children()} >= _PARTS and hasattr(each, "config")
    ]
    if not networks:
        raise UsageError(
            f"A {type(module).__name__} is neither an effdet-deploy nor an effdet model.",
            "Pass effdet_deploy.pytorch.network.create_model(...) or effdet.create_model(...).",
        )
    if len(networks) > 1:
        raise UsageError(
            f"The {type(module).__name__} in memory holds {len(networks)} networks: "
            f"{', '.join(networks)}.",
            "Pass only the network to export.",
        )
    benches = (each for each in outer.modules() if hasattr(each, "max_det_per_image"))
    bench = next((each for each in benches if hasattr(each, "anchors")), None)
    dtypes = {each.dtype for each in outer.parameters() if each.is_floating_point()}
    if dtypes - {torch.float32}:
        kinds = " and ".join(sorted(str(each).removeprefix("torch.") for each in dtypes))
        note = f"The weights in memory are {kinds}; the module was run in float32."
        found = find_network(copy.deepcopy(outer).float())
        return GivenModule(found.module, found.path, found.bench, note)
    return GivenModule(outer, networks[0], bench)


def hooks_of(module: nn.Module) -> tuple[str, ...]:
    """Return the kinds of hooks that run in a module's forward call."""
    kinds = {"_forward_pre_hooks": "forward pre-hook", "_forward_hooks": "forward hook"}
    return tuple(kind for name, kind in kinds.items() if getattr(module, name))


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode for a while, and then restore the mode of all its parts."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training
