"""What FP16 costs a network itself, level by level, and whether an artifact in FP16 costs more.

Rounding the weights moves the heads by what can be computed exactly; that is put onto the reference
first. An engine that computes FP16 in float32 has nothing else to add. One that computes in FP16
rounds what each operator gives: how much that is, the network says itself.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effdet_deploy.artifact.anchors import feature_sizes
from effdet_deploy.artifact.spec import HEAD_OUTPUTS
from effdet_deploy.parity.metrics import TensorErrors, tensor_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import DetectorSpec

    Tensors = Mapping[str, NDArray[Any]]

ROUNDOFF_FACTOR = 2.0
"""A level may differ by so many times FP16's unit roundoff of its size beyond its FP16 weights,
because the heads themselves are rounded."""
MOVED_FACTOR = 2.0
"""Or by so many times what rounding makes of it that is only joined, cut or reordered, which ONNX
Runtime does in FP16: of networks whose backbone does much of it, that is the larger of the two."""
OWN_FP16_FACTOR = 2.0
"""An engine that rounds may differ by so many times what rounding each operator's output makes of
the network, and lose so many times the detections: engines fuse and order operators differently."""
_ROUNDOFF = 2.0**-11


@dataclass(frozen=True)
class LevelCost:
    """One level of a head in FP16: root mean squares over all its elements.

    Attributes:
        level: of the pyramid.
        error: what the artifact differs by beyond its FP16 weights.
        own: what rounding each operator's output makes of the network.
        allowed: what ``error`` may be.
    """

    level: int
    error: float
    own: float
    allowed: float

    @property
    def used(self) -> float:
        """What ``error`` is of ``allowed``."""
        if not self.allowed:
            return math.inf if self.error else 0.0
        return self.error / self.allowed


class Fp16Cost:
    """What is gathered of the heads while the pictures go by.

    Args:
        spec: of the artifact.
        rounds: whether its engine rounds what each operator gives, as FP16 arithmetic does.
    """

    def __init__(self, spec: DetectorSpec, *, rounds: bool) -> None:
        self._rounds = rounds
        self._levels = list(_level_rows(spec))
        self._own: dict[tuple[str, int], TensorErrors] = defaultdict(TensorErrors)
        self._moved: dict[tuple[str, int], TensorErrors] = defaultdict(TensorErrors)
        self._found: dict[tuple[str, int], TensorErrors] = defaultdict(TensorErrors)
        self._whole: dict[str, TensorErrors] = defaultdict(TensorErrors)

    def add_own(self, known: Tensors, weights: Tensors, moved: Tensors, whole: Tensors) -> None:
        """Take the reference's heads, and the same in FP16 as :meth:`.Side.effects16` has them."""
        for name in HEAD_OUTPUTS:
            self._whole[name] += tensor_errors(known[name], whole[name])
            for level, rows in self._levels:
                expected = weights[name][:, rows]
                for pooled, each in ((self._own, whole), (self._moved, moved)):
                    pooled[name, level] += tensor_errors(expected, each[name][:, rows])

    def add(self, expected: Tensors, found: Tensors) -> None:
        """Take the heads of the reference with FP16 weights, and those of the artifact."""
        for name in HEAD_OUTPUTS:
            for level, rows in self._levels:
                self._found[name, level] += tensor_errors(
                    expected[name][:, rows], found[name][:, rows]
                )

    def snr_db(self, name: str) -> float | None:
        """Return the signal-to-noise ratio of a head that FP16 leaves the network itself."""
        return self._whole[name].snr_db if name in self._whole else None

    def levels(self, name: str) -> tuple[LevelCost, ...]:
        """Return how the levels of a head fare; empty where nothing was gathered."""
        found = []
        # A coarse level has few elements, so that chance would decide: the whole head counts too.
        made_of_all, moved_of_all = (_pooled(each, name) for each in (self._own, self._moved))
        for level, _ in self._levels:
            errors, own = self._found.get((name, level)), self._own.get((name, level))
            moved = self._moved[name, level]
            if errors is None or own is None or not errors.count:
                return ()
            roundoff = ROUNDOFF_FACTOR * _ROUNDOFF * _rms(errors.reference_energy, errors)
            made = _rms(own.error_energy, own)
            own_allowed = OWN_FP16_FACTOR * max(made, made_of_all) if self._rounds else 0.0
            moves = MOVED_FACTOR * max(_rms(moved.error_energy, moved), moved_of_all)
            differs = _rms(errors.error_energy, errors)
            found.append(LevelCost(level, differs, made, max(roundoff, moves, own_allowed)))
        return tuple(found)


def _rms(energy: float, errors: TensorErrors) -> float:
    return math.sqrt(energy / errors.count) if errors.count else math.nan


def _pooled(levels: Mapping[tuple[str, int], TensorErrors], name: str) -> float:
    errors = sum((each for (head, _), each in levels.items() if head == name), TensorErrors())
    return _rms(errors.error_energy, errors)


def _level_rows(spec: DetectorSpec) -> Iterator[tuple[int, slice]]:
    """Yield each level and the rows of the heads that are its."""
    anchors = spec.anchors
    in_place = len(anchors.octave_scales) * len(anchors.aspect_ratios)
    sizes = feature_sizes(spec.input.height, spec.input.width, anchors.max_level)
    start = 0
    for level in range(anchors.min_level, anchors.max_level + 1):
        end = start + math.prod(sizes[level]) * in_place
        yield level, slice(start, end)
        start = end
