"""Which layers lose most in INT8, and the largest INT8 share that keeps mAP within a budget."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from effdet_deploy.artifact.spec import HEAD_OUTPUTS
from effdet_deploy.errors import EffdetDeployError, VerificationError
from effdet_deploy.files import BROKEN_DOCUMENT, write_atomically
from effdet_deploy.onnxgraph.raw_heads import head_node
from effdet_deploy.onnxgraph.running import run_graph
from effdet_deploy.precision.int8.convolutions import int8_share

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from onnx import ModelProto

    from effdet_deploy.precision.int8.quantizer import Quantizer
    from effdet_deploy.progress import Progress

_IMAGES = 8
"""How many calibration pictures are used to compare heads for the ranking."""


@dataclass(frozen=True)
class GroupLoss:
    """The effect of INT8 in one group of layers.

    Attributes:
        group: stage and kind, such as ``backbone.blocks.3/dense``.
        macs_share: the group's share of the network's multiply-accumulates.
        noise: power of the noise over power of the signal, added over both heads, if only this
            group is INT8.
    """

    group: str
    macs_share: float
    noise: float

    @property
    def price(self) -> float:
        """Noise per share of the multiply-accumulates.

        The groups with the highest price are the first that stay in higher precision.
        """
        return self.noise / self.macs_share if self.macs_share else float("inf")


@dataclass(frozen=True)
class Search:
    """The result of a search for a budget.

    Attributes:
        kept: the groups that stay in higher precision.
        losses: all ranked groups, highest price first.
        drop: points of mAP lost against FP32.
        share: the share of multiply-accumulates that is INT8.
        evaluations: how often mAP was measured.
    """

    kept: tuple[str, ...]
    losses: tuple[GroupLoss, ...]
    drop: float
    share: float
    evaluations: int


class Journal:
    """Measurements by name in a JSON file, so that an interrupted search can continue.

    Args:
        path: the file; its name must depend on everything that the measurements depend on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, float] = {}
        if path.is_file():
            # Measurements of a damaged journal are made again.
            with contextlib.suppress(*BROKEN_DOCUMENT):
                known = json.loads(path.read_text(encoding="utf-8"))
                self._known = {str(name): float(value) for name, value in known.items()}

    def recall(self, name: str, measure: Callable[[], float]) -> float:
        """Return the measurement ``name``; if it is missing, measure it and store it."""
        if name not in self._known:
            self._known[name] = measure()
            with contextlib.suppress(OSError, EffdetDeployError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self._path, json.dumps(self._known, indent=1))
        return self._known[name]


def rank_groups(
    quantizer: Quantizer, names: Collection[str], journal: Journal, progress: Progress
) -> list[GroupLoss]:
    """Return the groups of the convolutions ``names``, highest price first."""
    batches = quantizer.batches[:_IMAGES]
    heads = [head_node(quantizer.model.graph, name).output[0] for name in HEAD_OUTPUTS]
    exact = list(run_graph(quantizer.model, heads, batches))
    signals = [sum(float((run[head] ** 2).sum()) for run in exact) for head in range(len(heads))]

    def noise(members: list[str]) -> float:
        reduced = run_graph(quantizer.quantized(members), heads, batches)
        lost = [0.0] * len(heads)
        for one, other in zip(exact, reduced, strict=True):
            for head in range(len(heads)):
                lost[head] += float(((one[head] - other[head]) ** 2).sum())
        return sum(power / signal for power, signal in zip(lost, signals, strict=True))

    groups: dict[str, list[str]] = {}
    for each in quantizer.convolutions:
        if each.name in names:
            groups.setdefault(each.group, []).append(each.name)
    losses = []
    for index, (group, members) in enumerate(groups.items(), start=1):
        progress(f"ranking layers: {index} of {len(groups)}, {group}")
        found = journal.recall(f"noise of {group}", partial(noise, members))
        losses.append(GroupLoss(group, int8_share(quantizer.convolutions, members), found))
    return sorted(losses, key=lambda each: -each.price)


def search(
    quantizer: Quantizer,
    names: Collection[str],
    budget: float,
    evaluate: Callable[[ModelProto], float],
    journal: Journal,
    progress: Progress,
) -> Search:
    """Find the largest share of INT8 whose mAP lies within ``budget`` points of FP32's.

    The groups with the highest price stay in higher precision; bisection finds how many must.

    Args:
        quantizer: the quantizer of the FP32 graph.
        names: the convolutions that may be INT8.
        budget: the allowed loss in points (hundredths of mAP).
        evaluate: returns the mAP of a graph as a fraction.
        journal: the measurements made so far.
        progress: called when a stage begins.

    Raises:
        VerificationError: no share of INT8 meets the budget.
    """
    progress("measuring the accuracy of FP32")
    exact = journal.recall("mAP of fp32", lambda: evaluate(quantizer.model))
    losses = rank_groups(quantizer, names, journal, progress)
    drops: dict[int, float] = {}

    def drop_without(count: int) -> float:
        """Return the points lost if the first ``count`` groups stay in higher precision."""
        if count not in drops:
            chosen = _without(quantizer, names, losses[:count])
            progress(f"measuring mAP with {len(losses) - count} of {len(losses)} groups in INT8")
            key = f"mAP with {','.join(sorted(each.group for each in losses[count:]))}"
            found = journal.recall(key, lambda: evaluate(quantizer.quantized(chosen)))
            drops[count] = 100 * (exact - found)
        return drops[count]

    count = _fewest(len(losses), lambda count: drop_without(count) <= budget)
    if count is None:
        raise VerificationError(
            f"No INT8 graph stays within {budget:g} points of FP32's mAP "
            f"({100 * exact:.2f}): with only the least harmful group in INT8, the loss is "
            f"{drops[len(losses) - 1]:.2f}.",
            "Allow a larger --max-map-drop, calibrate on more pictures, or use --fp16.",
        )
    in_int8 = _without(quantizer, names, losses[:count])
    return Search(
        tuple(each.group for each in losses[:count]),
        tuple(losses),
        drops[count],
        int8_share(quantizer.convolutions, in_int8),
        len(drops) + 1,
    )


def _without(
    quantizer: Quantizer, names: Collection[str], kept: Sequence[GroupLoss]
) -> tuple[str, ...]:
    groups = {each.group for each in kept}
    return tuple(
        each.name
        for each in quantizer.convolutions
        if each.name in names and each.group not in groups
    )


def _fewest(total: int, fits: Callable[[int], bool]) -> int | None:
    """Return the smallest count below ``total`` that fits, by bisection; None if no count fits."""
    if fits(0):
        return 0
    low, high = 0, total
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high if high < total else None
