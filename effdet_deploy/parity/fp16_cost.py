"""What FP16 costs a network, level by level, and whether an FP16 artifact loses more than that.

The effect of rounding the weights can be computed exactly, and is applied to the reference first.
A runtime that computes FP16 files in float32 adds no other error. A runtime that computes in FP16
also rounds the output of every operator; how much this changes the heads is measured on the
network itself.
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
"""Besides the effect of its FP16 weights, a level of a head may differ by its root mean square
times FP16's unit roundoff times this factor, because the heads themselves are rounded."""
MOVED_FACTOR = 2.0
"""A level may also differ by this factor times the effect of rounding values that are only joined,
cut or reordered, which ONNX Runtime does in FP16. For backbones with many of these operators,
this limit is larger than that of the roundoff."""
OWN_FP16_FACTOR = 2.0
"""In a runtime that computes in FP16, heads may differ by this factor times the effect of rounding
every operator's output. An FP16 artifact may also lose this many times the share of detections
that the network itself loses in FP16. The reason: runtimes fuse and order operators differently."""
_ROUNDOFF = 2.0**-11


@dataclass(frozen=True)
class LevelCost:
    """One pyramid level of a head in FP16; all values are root mean squares over its elements.

    Attributes:
        level: the number of the pyramid level.
        error: the artifact's error beyond the effect of its FP16 weights.
        own: the effect that rounding every operator's output has in the network.
        allowed: the largest allowed ``error``.
    """

    level: int
    error: float
    own: float
    allowed: float

    @property
    def used(self) -> float:
        """``error`` as a share of ``allowed``."""
        if not self.allowed:
            return math.inf if self.error else 0.0
        return self.error / self.allowed


class Fp16Cost:
    """The FP16 results of the heads, collected picture by picture.

    Args:
        spec: the spec of the artifact.
        rounds: whether the artifact's runtime rounds the output of every operator, as FP16
            arithmetic does.
    """

    def __init__(self, spec: DetectorSpec, *, rounds: bool) -> None:
        self._rounds = rounds
        self._levels = list(_level_rows(spec))
        self._own: dict[tuple[str, int], TensorErrors] = defaultdict(TensorErrors)
        self._moved: dict[tuple[str, int], TensorErrors] = defaultdict(TensorErrors)
        self._found: dict[tuple[str, int], TensorErrors] = defaultdict(TensorErrors)
        self._whole: dict[str, TensorErrors] = defaultdict(TensorErrors)

    def add_own(self, known: Tensors, weights: Tensors, moved: Tensors, whole: Tensors) -> None:
        """Add the reference's heads, and the effects of FP16 from :meth:`.Side.effects16`."""
        for name in HEAD_OUTPUTS:
            self._whole[name] += tensor_errors(known[name], whole[name])
            for level, rows in self._levels:
                expected = weights[name][:, rows]
                for pooled, each in ((self._own, whole), (self._moved, moved)):
                    pooled[name, level] += tensor_errors(expected, each[name][:, rows])

    def add(self, expected: Tensors, found: Tensors) -> None:
        """Add the heads of the reference with FP16 weights, and those of the artifact."""
        for name in HEAD_OUTPUTS:
            for level, rows in self._levels:
                self._found[name, level] += tensor_errors(
                    expected[name][:, rows], found[name][:, rows]
                )

    def snr_db(self, name: str) -> float | None:
        """Return the signal-to-noise ratio, in decibels, of the network's own head in FP16."""
        return self._whole[name].snr_db if name in self._whole else None

    def levels(self, name: str) -> tuple[LevelCost, ...]:
        """Return the levels of a head with their errors; empty if nothing was collected."""
        found = []
        # The root mean square of a coarse level depends on chance, because the level has few
        # elements. So the root mean square of the whole head is taken if it is larger.
        own_of_head, moved_of_head = (_pooled(each, name) for each in (self._own, self._moved))
        for level, _ in self._levels:
            errors, own = self._found.get((name, level)), self._own.get((name, level))
            moved = self._moved[name, level]
            if errors is None or own is None or not errors.count:
                return ()
            roundoff = ROUNDOFF_FACTOR * _ROUNDOFF * _rms(errors.reference_energy, errors)
            own_rms = _rms(own.error_energy, own)
            own_allowed = OWN_FP16_FACTOR * max(own_rms, own_of_head) if self._rounds else 0.0
            moved_allowed = MOVED_FACTOR * max(_rms(moved.error_energy, moved), moved_of_head)
            error_rms = _rms(errors.error_energy, errors)
            allowed = max(roundoff, moved_allowed, own_allowed)
            found.append(LevelCost(level, error_rms, own_rms, allowed))
        return tuple(found)


def _rms(energy: float, errors: TensorErrors) -> float:
    return math.sqrt(energy / errors.count) if errors.count else math.nan


def _pooled(levels: Mapping[tuple[str, int], TensorErrors], name: str) -> float:
    errors = sum((each for (head, _), each in levels.items() if head == name), TensorErrors())
    return _rms(errors.error_energy, errors)


def _level_rows(spec: DetectorSpec) -> Iterator[tuple[int, slice]]:
    """Yield every level and the rows of the heads that belong to it."""
    anchors = spec.anchors
    anchors_per_place = len(anchors.octave_scales) * len(anchors.aspect_ratios)
    sizes = feature_sizes(spec.input.height, spec.input.width, anchors.max_level)
    start = 0
    for level in range(anchors.min_level, anchors.max_level + 1):
        end = start + math.prod(sizes[level]) * anchors_per_place
        yield level, slice(start, end)
        start = end
