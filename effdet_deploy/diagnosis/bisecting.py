"""Which layers a reduced precision loses by: the smallest set that, made exact, heals the heads.

:func:`bisect_file` searches in an ONNX file against the FP32 file that it was made from.

Groups of layers are ranked by the noise that each makes alone; the fewest of the worst that reach
the goal together are found by halving; and of their layers those that are needed, again by halving
(QuickXplain: Junker, "Preferred Explanations and Relaxations for Over-Constrained Problems", 2004),
which takes about 2·k·log2(n/k) measurements for k of n layers. In the end each is tried without.
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
"""The heads are measured on the first pictures: a layer that loses does so on any."""
MOST_MEASUREMENTS = 160
GAIN_DB = 10.0
"""What is asked beyond the candidate's own level where that is within the tolerance already: then
the layers are found that make nine tenths of its noise."""
_GROUP_PARTS = {"backbone": 3, "fpn": 3}
"""How many parts of a module path name a group; one of the heads'."""
_SHOWN_ALONE = 10


@dataclass(frozen=True)
class Blame:
    """A layer, and what the heads' signal-to-noise ratio in decibels is with it alone reduced.

    NaN where that was not measured.
    """

    layer: str
    alone_db: float

    def __str__(self) -> str:
        alone = "" if math.isnan(self.alone_db) else f"  alone {_db(self.alone_db)}"
        return f"  {self.layer}{alone}"


@dataclass(frozen=True)
class Bisection:
    """What was found.

    Attributes:
        kind: the reduced precision.
        total: layers that are in it.
        tolerance_db: what the heads must reach, by :data:`.TOLERANCES`.
        goal_db: what was searched for; above the tolerance where the candidate is within it.
        before_db: what the candidate's heads reach: the worse head's signal-to-noise ratio.
        after_db: what they reach with ``layers`` exact.
        layers: the set; empty where no layer's precision explains the loss.
        measurements: how often the heads were measured; at most ``bound``.
        bound: see ``measurements``.
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
        """Return everything for JSON; a number that is not finite is None, as JSON has none."""
        document: dict[str, Any] = without_non_finite(dataclasses.asdict(self))
        return document | {"is_explained": self.is_explained}

    def lines(self) -> list[str]:
        """Return the finding as text, a line each."""
        first = (
            f"The heads of this {self.kind.upper()} file reach {_db(self.before_db)}; "
            f"{self.tolerance_db:g} dB are asked for."
        )
        if self.before_db == math.inf:
            return [first]
        reached = f"they reach {_db(self.after_db)}"
        effort = f"({self.measurements} measurements of at most {self.bound})"
        if not self.is_explained:
            lost = (
                f"With all {self.total} layers exact {reached}: the loss is not one of precision."
            )
            return [first, f"{lost} Compare with --layers {effort}."]
        needed = "none of them can be left out" if self.is_smallest else "a smaller set may do"
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
    raise UnknownNameError("precision to bisect", name, KINDS)


def require_bisectable(candidates: Sequence[Path], reference: str, kind: Kind) -> None:
    """Check what is to be bisected, before anything is loaded.

    Raises:
        UsageError: a candidate is no ONNX file of that precision, or the reference none in FP32.
        MissingPackageError: the ``onnx`` package is not installed.
    """
    for path, wanted in (*((each, kind) for each in candidates), (Path(reference), "fp32")):
        if SUFFIXES.get(path.suffix.lower()) != "onnx":
            raise UsageError(
                f"--bisect works on ONNX files, and '{path.name}' is none.",
                "Name the ONNX files: in the reduced precision, and the FP32 one it was made from.",
            )
        found = read_spec(path, "onnx").precision.kind
        if found != wanted:
            raise UsageError(
                f"--bisect {kind} compares {kind.upper()} files with one in FP32; "
                f"'{path.name}' should be {wanted.upper()} and is {found.upper()}.",
                "Name a candidate in that precision, and as reference what it was made from.",
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
    """Find the layers whose precision explains what an ONNX file loses against its FP32 form.

    Args:
        candidate: the file in the reduced precision.
        reference: the FP32 file that it was made from.
        kind: the reduced precision.
        pictures: what to measure on; default structured pictures of our own.
        progress: told what is being measured.
        bound: on the number of measurements.

    Raises:
        UsageError: the two files are not of one network.
    """
    import onnx

    from effdet_deploy.diagnosis.grafting import HalfGrafting, HeadsMeter, Int8Grafting
    from effdet_deploy.onnxgraph.running import graph_inputs

    spec = read_spec(reference, "onnx")
    read = read_spec(candidate, "onnx")
    if (read.input, read.batch) != (spec.input, spec.batch):
        raise UsageError(
            f"--bisect compares files of one network; '{candidate.name}' takes another input or "
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
    """Find the smallest set of layers that, made exact, reaches the goal; see the module.

    Args:
        grafting: the network whose layers can be made exact.
        measure: a graph to its heads' signal-to-noise ratio in decibels.
        kind: the reduced precision, which decides the tolerance.
        progress: told what is being measured.
        bound: on the number of measurements.
    """
    search = _Search(grafting, measure, progress, bound)
    tolerance = TOLERANCES[kind].least_snr_db or 0.0
    before = search.snr(frozenset())
    goal = tolerance if before < tolerance else before + GAIN_DB
    # A file that loses nothing has no goal below infinity, and nothing to be made exact.
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
    """Measurements of what is exact, each made once and counted.

    ``best`` is the smallest set that was found to reach its goal.
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
        """Return what the heads reach with ``exact`` so; raises _SpentError beyond the bound."""
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
        """Return the layers of the fewest groups, the noisiest first, that reach ``goal``."""
        every = frozenset(self.grafting.layers)
        groups: dict[str, list[str]] = {}
        for layer in self.grafting.layers:
            # By the part of the network that a layer stands in, such as fpn.cell.1.
            parts = layer.split(".")
            groups.setdefault(".".join(parts[: _GROUP_PARTS.get(parts[0], 1)]), []).append(layer)
        alone = {name: self.snr(every - frozenset(layers)) for name, layers in groups.items()}
        ranked = sorted(groups, key=lambda name: alone[name])

        def members(count: int) -> list[str]:
            return [layer for name in ranked[:count] for layer in groups[name]]

        low, high = 0, len(ranked)
        while high - low > 1:
            middle = (low + high) // 2
            if self._does(frozenset(members(middle)), goal):
                high = middle
            else:
                low = middle
        return members(high)

    def thinned(self, layers: list[str], goal: float) -> Exact:
        """Return a part of ``layers`` that reaches ``goal`` and of which none can be left out."""
        found = self._needed(frozenset(), layers, goal, is_new=False)
        # Noise does not quite add up: what one layer made superfluous shows only in the end.
        for layer in found:
            if len(found) > 1 and self._does(frozenset(found) - {layer}, goal):
                return self.thinned([each for each in found if each != layer], goal)
        return frozenset(found)

    def _needed(self, base: Exact, layers: list[str], goal: float, *, is_new: bool) -> list[str]:
        """Return which of ``layers`` must join ``base``; all of them together are enough.

        Args:
            base: what is exact already.
            layers: to choose from, those to be preferred first.
            goal: what is to be reached.
            is_new: whether ``base`` has grown since it was known not to be enough.
        """
        if is_new and self._does(base, goal):
            return []
        if len(layers) == 1:
            return layers
        first, second = layers[: len(layers) // 2], layers[len(layers) // 2 :]
        later = self._needed(base | set(first), second, goal, is_new=True)
        return self._needed(base | set(later), first, goal, is_new=bool(later)) + later

    def _does(self, exact: Exact, goal: float) -> bool:
        """Tell whether ``exact`` reaches ``goal``, and remember the smallest that does."""
        does = self.snr(exact) >= goal
        if does and (self.best is None or len(exact) < len(self.best)):
            self.best = exact
        return does

    def alone(self, layers: Collection[str]) -> Mapping[str, float]:
        """Return what the heads reach with each of ``layers`` alone reduced, the worst first."""
        every = frozenset(self.grafting.layers)
        found = dict.fromkeys((each for each in self.grafting.layers if each in layers), math.nan)
        if len(found) <= min(_SHOWN_ALONE, self.bound - self.count):
            found = {layer: self.snr(every - {layer}) for layer in found}
        return dict(sorted(found.items(), key=lambda item: item[1]))
