"""Bisecting: find the smallest set of layers whose reduced precision spoils the raw heads.

:func:`bisect_file` compares an ONNX file with the FP32 file that it was made from. Measured is the
signal-to-noise ratio of the heads while some layers are *exact*, which means computed as in the
FP32 file. The goal is the ratio that the heads have to reach.

Groups of layers are ranked by the noise that each group makes alone. Halving finds how many of the
noisiest groups are needed to reach the goal together. Halving again finds which of their layers are
needed (QuickXplain: Junker, "Preferred Explanations and Relaxations for Over-Constrained Problems",
2004), which takes about 2·k·log2(n/k) measurements for k of n layers. At the end, every layer of
the result is tested by leaving it out.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from effdet_deploy.artifact.modelfile import SUFFIXES, read_spec
from effdet_deploy.detection.pictures import own_pictures
from effdet_deploy.errors import UnknownNameError, UsageError, require_package
from effdet_deploy.parity.tolerances import TOLERANCES
from effdet_deploy.parity.verdict import without_non_finite
from effdet_deploy.progress import silent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from onnx import ModelProto

    from effdet_deploy.detection.pictures import Pictures
    from effdet_deploy.diagnosis.grafting import Grafting
    from effdet_deploy.progress import Progress

    Exact = frozenset[str]

Kind = Literal["fp16", "int8"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PICTURES = 2
"""How many pictures the heads are measured on: lost precision shows on any picture."""
MOST_MEASUREMENTS = 160
GAIN_DB = 10.0
"""If the candidate is within the tolerance already, the goal is its own ratio plus this many
decibels: this finds the layers that make nine tenths of its noise."""
_GROUP_PARTS = {"backbone": 3, "fpn": 3}
"""How many parts of a module path name a group of layers; one part for the heads."""
_MOST_MEASURED_ALONE = 10
"""The most layers of a result that are also measured one by one."""


@dataclass(frozen=True)
class Blame:
    """A layer, and the heads' signal-to-noise ratio in decibels if only this layer is reduced.

    The ratio is NaN if it was not measured.
    """

    layer: str
    alone_db: float

    def __str__(self) -> str:
        alone = "" if math.isnan(self.alone_db) else f"  alone {_db(self.alone_db)}"
        return f"  {self.layer}{alone}"


@dataclass(frozen=True)
class Bisection:
    """The result of bisecting.

    Attributes:
        kind: the reduced precision.
        total: how many layers have the reduced precision.
        tolerance_db: the ratio that the heads must reach, by :data:`.TOLERANCES`.
        goal_db: the ratio to reach; above the tolerance if the candidate is already within it.
        before_db: the ratio of the candidate's worse head.
        after_db: the ratio of the worse head with ``layers`` exact.
        layers: the smallest set that was found; empty if no layer's precision explains the errors.
        measurements: how often the heads were measured.
        bound: the largest allowed number of measurements.
        is_smallest: whether every layer of the set was shown to be needed.
    """

    kind: Kind
    total: int
    tolerance_db: float
    goal_db: float
    before_db: float
    after_db: float
    layers: tuple[Blame, ...]
    measurements: int
    bound: int
    is_smallest: bool

    @property
    def is_explained(self) -> bool:
        """Whether making ``layers`` exact reaches the goal."""
        return self.after_db >= self.goal_db

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON, in which values that are not finite are None."""
        document: dict[str, Any] = without_non_finite(dataclasses.asdict(self))
        return document | {"is_explained": self.is_explained}

    def lines(self) -> list[str]:
        """Return the result as lines of text."""
        first = (
            f"The heads of this {self.kind.upper()} file reach {_db(self.before_db)}; "
            f"{self.tolerance_db:g} dB are required."
        )
        if self.before_db == math.inf:
            return [first]
        reached = f"they reach {_db(self.after_db)}"
        effort = f"({self.measurements} measurements of at most {self.bound})"
        if not self.is_explained:
            lost = (
                f"With all {self.total} layers exact {reached}: precision does not cause the loss."
            )
            return [first, f"{lost} {effort} Compare with --layers."]
        needed = (
            "none of them can be left out" if self.is_smallest else "a smaller set may be enough"
        )
        exact = f"With these {len(self.layers)} of {self.total} layers exact"
        return [first, f"{exact} {reached}, and {needed} {effort}:", *map(str, self.layers)]


def _db(value: float) -> str:
    if value == math.inf:
        return "no error at all"
    return f"{value:.1f} dB" if math.isfinite(value) else "values that are not finite"


def parse_kind(name: str) -> Kind:
    """Return the precision that ``name`` names; raises UnknownNameError for any other name."""
    for kind in KINDS:
        if kind == name:
            return kind
    raise UnknownNameError("precision for --bisect", name, KINDS)


def require_bisectable(candidates: Sequence[Path], reference: str, kind: Kind) -> None:
    """Check the files to bisect before they are loaded.

    Raises:
        UsageError: a candidate is not an ONNX file of the precision ``kind``, or the reference is
            not FP32.
        MissingPackageError: the ``onnx`` package is not installed.
    """
    for path, wanted in (*((each, kind) for each in candidates), (Path(reference), "fp32")):
        if SUFFIXES.get(path.suffix.lower()) != "onnx":
            raise UsageError(
                f"--bisect only works on ONNX files, but '{path.name}' is not an ONNX file.",
                "Name the ONNX file in the reduced precision and the FP32 file it was made from.",
            )
        found = read_spec(path, "onnx").precision.kind
        if found != wanted:
            raise UsageError(
                f"--bisect {kind} compares {kind.upper()} files with an FP32 file, but "
                f"'{path.name}', which should be {wanted.upper()}, is {found.upper()}.",
                "Name a candidate in that precision, and as reference the file it was made from.",
            )
    require_package("onnx", "bisecting", "export")


def bisect_file(
    candidate: Path,
    reference: Path,
    kind: Kind,
    pictures: Pictures | None = None,
    progress: Progress = silent,
    bound: int = MOST_MEASUREMENTS,
) -> Bisection:
    """Find the layers whose precision makes the heads of an ONNX file differ from the FP32 heads.

    Args:
        candidate: the file in the reduced precision.
        reference: the FP32 file that it was made from.
        kind: the reduced precision.
        pictures: the pictures to measure on; default: generated ones.
        progress: called with the current measurement.
        bound: the largest number of measurements.

    Raises:
        UsageError: the two files do not hold the same network.
    """
    import onnx

    from effdet_deploy.diagnosis.grafting import HalfGrafting, HeadsMeter, Int8Grafting
    from effdet_deploy.onnxgraph.running import graph_inputs

    spec = read_spec(reference, "onnx")
    read = read_spec(candidate, "onnx")
    if (read.input, read.batch) != (spec.input, spec.batch):
        raise UsageError(
            f"--bisect needs two files of one network; '{candidate.name}' has another input or "
            "batch than its reference.",
            "Name the FP32 file that the candidate was made from.",
        )
    images = (pictures or own_pictures(spec.input)).letterboxed(spec.input, PICTURES)
    known, reduced = onnx.load(reference), onnx.load(candidate)
    grafting = (Int8Grafting if kind == "int8" else HalfGrafting)(known, reduced)
    heads = HeadsMeter(known, list(graph_inputs(images, spec)))
    return bisect(grafting, heads.snr_db, kind, progress, bound)


def bisect(
    grafting: Grafting,
    measure: Callable[[ModelProto], float],
    kind: Kind,
    progress: Progress = silent,
    bound: int = MOST_MEASUREMENTS,
) -> Bisection:
    """Find the smallest set of layers that reaches the goal when made exact; see the module.

    Args:
        grafting: the network whose layers can be made exact.
        measure: returns the heads' signal-to-noise ratio of a graph, in decibels.
        kind: the reduced precision, which decides the tolerance.
        progress: called with the current measurement.
        bound: the largest number of measurements.
    """
    search = _Search(grafting, measure, progress, bound)
    tolerance = TOLERANCES[kind].least_snr_db or 0.0
    before = search.snr(frozenset())
    goal = tolerance if before < tolerance else before + GAIN_DB
    # If the heads have no errors, the goal is infinite, and no layer needs to be exact.
    chosen = frozenset(grafting.layers if before < goal else ())
    is_smallest = False
    if before < goal <= search.snr(chosen):
        try:
            chosen = search.thinned(search.worst_groups(goal), goal)
            is_smallest = True
        except _SpentError:
            chosen = search.best or chosen
    after = search.snr(chosen)
    found = chosen if after >= goal else frozenset()
    return Bisection(
        kind,
        len(grafting.layers),
        tolerance,
        goal,
        before,
        after,
        tuple(Blame(layer, alone) for layer, alone in search.alone(found).items()),
        search.count,
        bound,
        is_smallest,
    )


class _SpentError(Exception):
    """The bound on measurements is reached."""


@dataclass(eq=False)
class _Search:
    """The measurements of sets of exact layers; every set is measured once and counted.

    ``best`` is the smallest set found so far that reaches its goal.
    """

    grafting: Grafting
    measure: Callable[[ModelProto], float]
    progress: Progress
    bound: int
    best: Exact | None = None
    _known: dict[Exact, float] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many measurements were made."""
        return len(self._known)

    def snr(self, exact: Exact) -> float:
        """Return the heads' ratio if these are exact; raises _SpentError beyond the bound."""
        if exact not in self._known:
            if self.count >= self.bound:
                raise _SpentError
            self.progress(
                f"bisecting: measurement {self.count + 1} of at most {self.bound}, "
                f"{len(exact)} of {len(self.grafting.layers)} layers exact"
            )
            self._known[exact] = self.measure(self.grafting.with_exact(exact))
        return self._known[exact]

    def worst_groups(self, goal: float) -> list[str]:
        """Return the layers of the N noisiest groups, with the smallest N that reaches ``goal``."""
        every = frozenset(self.grafting.layers)
        groups: dict[str, list[str]] = {}
        for layer in self.grafting.layers:
            # The group of a layer is the part of the network that holds it, such as fpn.cell.1.
            parts = layer.split(".")
            groups.setdefault(".".join(parts[: _GROUP_PARTS.get(parts[0], 1)]), []).append(layer)
        alone = {name: self.snr(every - frozenset(layers)) for name, layers in groups.items()}
        ranked = sorted(groups, key=lambda name: alone[name])

        def members(count: int) -> list[str]:
            return [layer for name in ranked[:count] for layer in groups[name]]

        low, high = 0, len(ranked)
        while high - low > 1:
            middle = (low + high) // 2
            if self._reaches(frozenset(members(middle)), goal):
                high = middle
            else:
                low = middle
        return members(high)

    def thinned(self, layers: list[str], goal: float) -> Exact:
        """Return a subset of ``layers`` that reaches ``goal``, all of whose layers are needed."""
        found = self._needed(frozenset(), layers, goal, is_new=False)
        # Noise is not quite additive, so a superfluous layer shows only at the end.
        for layer in found:
            if len(found) > 1 and self._reaches(frozenset(found) - {layer}, goal):
                return self.thinned([each for each in found if each != layer], goal)
        return frozenset(found)

    def _needed(self, base: Exact, layers: list[str], goal: float, *, is_new: bool) -> list[str]:
        """Return which of ``layers`` must join ``base``; all of them together reach the goal.

        Args:
            base: the layers that are exact already.
            layers: the layers to choose from, preferred ones first.
            goal: the signal-to-noise ratio to reach, in decibels.
            is_new: whether ``base`` has grown since the goal was last missed with it.
        """
        if is_new and self._reaches(base, goal):
            return []
        if len(layers) == 1:
            return layers
        first, second = layers[: len(layers) // 2], layers[len(layers) // 2 :]
        later = self._needed(base | set(first), second, goal, is_new=True)
        return self._needed(base | set(later), first, goal, is_new=bool(later)) + later

    def _reaches(self, exact: Exact, goal: float) -> bool:
        """Return whether ``exact`` reaches ``goal``, and remember the smallest set that does."""
        reaches = self.snr(exact) >= goal
        if reaches and (self.best is None or len(exact) < len(self.best)):
            self.best = exact
        return reaches

    def alone(self, layers: Collection[str]) -> Mapping[str, float]:
        """Return, by layer, the heads' ratio with only this layer reduced; worst first."""
        every = frozenset(self.grafting.layers)
        found = dict.fromkeys((each for each in self.grafting.layers if each in layers), math.nan)
        if len(found) <= min(_MOST_MEASURED_ALONE, self.bound - self.count):
            found = {layer: self.snr(every - {layer}) for layer in found}
        return dict(sorted(found.items(), key=lambda item: item[1]))
