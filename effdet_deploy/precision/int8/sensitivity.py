"""Which layers INT8 hurts most, and the largest share of them that keeps mAP within a budget."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effdet_deploy.artifact.spec import HEAD_OUTPUTS, INPUT_NAME
from effdet_deploy.errors import EffdetDeployError, VerificationError
from effdet_deploy.files import write_atomically
from effdet_deploy.onnxgraph.heads import head_node
from effdet_deploy.precision.int8.convolutions import int8_share
from effdet_deploy.precision.ranges import open_session, with_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

    from effdet_deploy.precision.int8.quantizer import Quantiser
    from effdet_deploy.progress import Progress

_IMAGES = 8
"""Ranking compares heads on so many calibration pictures."""


@dataclass(frozen=True)
class GroupLoss:
    """What INT8 in one group of layers does.

    Attributes:
        group: stage and kind, such as ``backbone.blocks.3/dense``.
        macs_share: its share of the network's multiply-accumulates.
        noise: noise over signal in the heads, power, both heads added, with this group alone INT8.
    """

    group: str
    macs_share: float
    noise: float

    @property
    def price(self) -> float:
        """Noise for each share of the multiply-accumulates: the dearest go first."""
        return self.noise / self.macs_share if self.macs_share else float("inf")


@dataclass(frozen=True)
class Plan:
    """What a budget search found.

    Attributes:
        kept: groups that stay in higher precision.
        losses: every group that was ranked, dearest first.
        drop: points of mAP lost against FP32.
        share: of the multiply-accumulates that is INT8.
        evaluations: how often mAP was measured.
    """

    kept: tuple[str, ...]
    losses: tuple[GroupLoss, ...]
    drop: float
    share: float
    evaluations: int


class Journal:
    """Measurements by name in a JSON file, so that an interrupted search goes on where it was.

    Args:
        path: its name must depend on everything that the measurements depend on.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, float] = {}
        if path.is_file():
            # A damaged journal costs the time that it would have saved.
            with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
                known = json.loads(path.read_text(encoding="utf-8"))
                self._known = {str(name): float(value) for name, value in known.items()}

    def recall(self, name: str, measure: Callable[[], float]) -> float:
        """Return what is known under ``name``; measure and note it if nothing is."""
        if name not in self._known:
            self._known[name] = measure()
            with contextlib.suppress(OSError, EffdetDeployError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self._path, json.dumps(self._known, indent=1))
        return self._known[name]


def rank_groups(
    quantiser: Quantiser, names: Collection[str], journal: Journal, progress: Progress
) -> list[GroupLoss]:
    """Return the groups of the convolutions ``names``, dearest first."""
    exact = _heads(quantiser.model, quantiser.batches[:_IMAGES])
    groups: dict[str, list[str]] = {}
    for each in quantiser.convolutions:
        if each.name in names:
            groups.setdefault(each.group, []).append(each.name)
    losses = []
    for index, (group, members) in enumerate(groups.items(), start=1):
        progress(f"ranking layers: {index} of {len(groups)}, {group}")

        def measure(members: list[str] = members) -> float:
            model = quantiser.quantised(members)
            return _noise(exact, _heads(model, quantiser.batches[:_IMAGES]))

        noise = journal.recall(f"noise of {group}", measure)
        losses.append(GroupLoss(group, int8_share(quantiser.convolutions, members), noise))
    return sorted(losses, key=lambda each: -each.price)


def _heads(
    model: ModelProto, batches: Sequence[NDArray[np.generic]]
) -> list[list[NDArray[np.float32]]]:
    values = [head_node(model.graph, name).output[0] for name in HEAD_OUTPUTS]
    session = open_session(with_outputs(model, values))
    return [session.run(None, {INPUT_NAME: batch}) for batch in batches]


def _noise(exact: list[list[NDArray[np.float32]]], mine: list[list[NDArray[np.float32]]]) -> float:
    total = 0.0
    for head in range(len(HEAD_OUTPUTS)):
        lost = sum(
            float(((a[head] - b[head]) ** 2).sum()) for a, b in zip(exact, mine, strict=True)
        )
        total += lost / sum(float((each[head] ** 2).sum()) for each in exact)
    return total


def search(
    quantiser: Quantiser,
    names: Collection[str],
    budget: float,
    evaluate: Callable[[ModelProto], float],
    journal: Journal,
    progress: Progress,
) -> Plan:
    """Return the plan with the most INT8 whose mAP lies within ``budget`` points of FP32's.

    Groups are given up dearest first, and how many must be is found by bisection.

    Args:
        quantiser: of the FP32 graph.
        names: the convolutions that may be INT8.
        budget: points (hundredths of mAP).
        evaluate: an INT8 graph, or the FP32 one, to mAP as a fraction.
        journal: of measurements made before.
        progress: told what is being done.

    Raises:
        VerificationError: no share of INT8 meets the budget.
    """
    progress("measuring the accuracy of FP32")
    exact = journal.recall("mAP of fp32", lambda: evaluate(quantiser.model))
    losses = rank_groups(quantiser, names, journal, progress)
    drops: dict[int, float] = {}

    def drop_without(count: int) -> float:
        """Return the points lost when the ``count`` dearest groups are kept."""
        if count not in drops:
            chosen = _without(quantiser, names, losses[:count])
            progress(f"measuring mAP with {len(losses) - count} of {len(losses)} groups in INT8")
            key = f"mAP with {','.join(sorted(each.group for each in losses[count:]))}"
            found = journal.recall(key, lambda: evaluate(quantiser.quantised(chosen)))
            drops[count] = 100 * (exact - found)
        return drops[count]

    count = _fewest(len(losses), lambda count: drop_without(count) <= budget)
    if count is None:
        raise VerificationError(
            f"No INT8 graph stays within {budget:g} points of FP32's mAP "
            f"({100 * exact:.2f}): the mildest group alone loses {drops[len(losses) - 1]:.2f}.",
            "Allow a larger --max-map-drop, calibrate on more pictures, or use --fp16.",
        )
    kept = _without(quantiser, names, losses[:count])
    return Plan(
        tuple(each.group for each in losses[:count]),
        tuple(losses),
        drops[count],
        int8_share(quantiser.convolutions, kept),
        len(drops) + 1,
    )


def _without(
    quantiser: Quantiser, names: Collection[str], kept: Sequence[GroupLoss]
) -> tuple[str, ...]:
    groups = {each.group for each in kept}
    return tuple(
        each.name
        for each in quantiser.convolutions
        if each.name in names and each.group not in groups
    )


def _fewest(total: int, fits: Callable[[int], bool]) -> int | None:
    """Return the smallest count below ``total`` that fits, by bisection; None if none does."""
    if fits(0):
        return 0
    low, high = 0, total
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high if high < total else None
