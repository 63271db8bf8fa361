"""FP16 arithmetic imitated in float32: what a network loses in a runtime that computes in FP16.

Weights and outputs of operators are rounded; sums inside an operator stay float32. Hooks on modules
would miss additions and functional activations, so PyTorch's dispatcher is used.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from effdet_deploy.artifact.spec import HEAD_OUTPUTS
from effdet_deploy.pytorch.graph import fold_for_inference
from effdet_deploy.pytorch.graph.pipeline import HeadsPipeline
from effdet_deploy.pytorch.network.blocks import FpnCombine

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray
    from torch._ops import OpOverload

    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.pytorch.network import EfficientDet

    Heads = dict[str, NDArray[Any]]

_MOVES = (torch.ops.aten.cat.default, torch.ops.aten.stack.default, torch.ops.aten.clone.default)
"""Operators that only move values, and return a copy instead of a view."""


class HalfNetwork:
    """The effects of FP16 on the heads of a network.

    Args:
        network: our model; it is copied and not changed.
        spec: the spec of the FP16 artifact: its input, and the layout of the heads.
        kept: names of the graph's nodes that stay FP32; their weights are not rounded.
    """

    def __init__(
        self, network: EfficientDet, spec: DetectorSpec, kept: Collection[str] = ()
    ) -> None:
        folded = fold_for_inference(network, spec.input)
        self._exact = HeadsPipeline(folded, spec).eval()
        self._halved = copy.deepcopy(self._exact)
        modules = {name.rpartition(".")[0] for name in kept}
        for name, module in self._halved.network.named_modules():
            if name in modules:
                continue
            for each in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                each.data = to_half_and_back(each.data)
            if isinstance(module, FpnCombine):
                rounded = to_half_and_back(torch.tensor(module.frozen_weights))
                module.frozen_weights = rounded.tolist()

    def effects(self, batch: NDArray[Any]) -> tuple[Heads, Heads, Heads]:
        """Return by how much FP16 changes the heads for a batch of graph inputs.

        Returns:
            Three dicts of changes by the names in :data:`.HEAD_OUTPUTS`: if only weights are
            rounded; if values that are only moved are rounded too; and if all values are rounded.
        """
        with torch.no_grad():
            pixels = self._exact.preprocess(torch.from_numpy(batch))
            exact = _heads(self._exact, pixels)
            weights = _heads(self._halved, pixels)
            with Rounding(moves_only=True):
                moved = _heads(self._halved, pixels)
            with Rounding():
                operators = _heads(self._halved, to_half_and_back(pixels))
        first, second, third = (
            {name: (each[name] - exact[name]).numpy() for name in HEAD_OUTPUTS}
            for each in (weights, moved, operators)
        )
        return first, second, third


def _heads(pipeline: HeadsPipeline, pixels: Tensor) -> dict[str, Tensor]:
    logits, codes = pipeline.network(pixels)
    given = (pipeline.class_logits(logits), pipeline.box_regression(codes))
    return dict(zip(HEAD_OUTPUTS, given, strict=True))


class Rounding(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Rounds every float32 tensor that an operator makes to FP16, while it is active.

    Args:
        moves_only: only round values that are joined, cut or reordered: a runtime that computes
            FP16 in float32 still moves values in FP16.
    """

    def __init__(self, *, moves_only: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._moves_only = moves_only

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the operator and round its result, in place."""
        given = func(*args, **(kwargs or {}))
        # A view is not computed: its values were rounded when they were computed.
        moves = func.is_view or func in _MOVES
        if func.is_view if not self._moves_only else not moves:
            return given
        for each in given if isinstance(given, tuple | list) else (given,):
            if isinstance(each, Tensor) and each.dtype == torch.float32:
                each.copy_(to_half_and_back(each))
        return given


def to_half_and_back(values: Tensor) -> Tensor:
    """Round to FP16; values too large for FP16 stay, because our files keep them in FP32."""
    if values.dtype != torch.float32:
        return values
    rounded = values.half().float()
    return torch.where(rounded.isinf(), values, rounded)
