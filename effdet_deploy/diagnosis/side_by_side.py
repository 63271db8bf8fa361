"""Everything that ``effdet-deploy compare`` finds out: artifacts beside one reference."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effdet_deploy.detection.images import load_image
from effdet_deploy.diagnosis.causes import find_causes
from effdet_deploy.diagnosis.layers import least_snr, locate
from effdet_deploy.diagnosis.sides import (
    Engine,
    layer_sources,
    open_references,
    reference_name,
    require_layers,
)
from effdet_deploy.errors import UsageError
from effdet_deploy.evaluation.pictures import own_pictures
from effdet_deploy.parity.breakdown import Breakdown, break_down, coco_results
from effdet_deploy.parity.comparison import compare_all
from effdet_deploy.parity.side import open_side
from effdet_deploy.parity.tolerances import coarser
from effdet_deploy.progress import silent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from effdet_deploy.artifact.spec import InputSpec
    from effdet_deploy.diagnosis.layers import LayerReport
    from effdet_deploy.diagnosis.sides import Reference
    from effdet_deploy.evaluation.accuracy import Difference
    from effdet_deploy.evaluation.cocoset import CocoSet
    from effdet_deploy.evaluation.pictures import Pictures
    from effdet_deploy.parity.comparison import Comparison
    from effdet_deploy.parity.side import Side
    from effdet_deploy.progress import Progress

_PREPROCESS = "preprocess."
LAYER_PICTURES = 4
"""Layers are compared on the first pictures only: a wrong layer is wrong on any."""


@dataclass(frozen=True)
class Scores:
    """mAP of both sides as fractions, on the same pictures, and the paired difference."""

    reference: float
    candidate: float
    difference: Difference


@dataclass(frozen=True, eq=False)
class Examined:
    """One candidate: the comparison, and what follows from it.

    Attributes:
        comparison: verdict and pictures.
        breakdown: detections by class and size, and how far pairs differ.
        scores: mAP, where annotations were given.
        layers: the comparison of layers, where it was asked for.
        causes: sentences that say what makes the candidate differ.
    """

    comparison: Comparison
    breakdown: Breakdown
    scores: Scores | None = None
    layers: LayerReport | None = None
    causes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the candidate does what the reference does."""
        return self.comparison.report.passed


@dataclass(frozen=True, eq=False)
class SideBySide:
    """All candidates beside one reference, which goes by the name ``reference``."""

    reference: str
    examined: tuple[Examined, ...]
    pictures: Pictures

    @property
    def passed(self) -> bool:
        """Whether every candidate does what the reference does."""
        return all(each.passed for each in self.examined)


def compare_files(
    candidates: Sequence[Path],
    reference: str,
    pictures: Pictures | None = None,
    *,
    engine: Engine | None = None,
    layers: bool = False,
    progress: Progress = silent,
) -> SideBySide:
    """Compare exported models with a reference: another exported model, or weights.

    Args:
        candidates: exported models of any kind.
        reference: the path of an exported model; or weights, which run in eager PyTorch:
            ``pretrained``, ``random``, a path or a URL.
        pictures: what to compare on; default :func:`own_pictures` of the first candidate.
        engine: how the models are run.
        layers: compare layer by layer as well, which takes ONNX files of ours.
        progress: told which stage begins.

    Raises:
        UsageError: models that cannot be compared with each other, or not by layers.
        MissingPackageError: weights without torch, or annotations without pycocotools.
        InputError: a model, a picture or the weights are unusable.
    """
    if not candidates:
        raise UsageError("There is no candidate to compare.", "Name at least one model.")
    if layers:
        require_layers(candidates, reference)
    if pictures is not None and pictures.dataset is not None:
        from effdet_deploy.evaluation.accuracy import require_pycocotools

        require_pycocotools()
    chosen = engine or Engine()
    with ExitStack() as stack:
        progress("loading the models")
        settings = dataclasses.asdict(chosen)
        ours: dict[Path, Side] = {path: open_side(path, stack, **settings) for path in candidates}
        shown = pictures or own_pictures(next(iter(ours.values())).spec.input)
        _require_categories(ours.values(), shown)
        specs = {path: side.spec for path, side in ours.items()}
        theirs = open_references(reference, specs, chosen, stack)
        if layers:
            for path, side in ours.items():
                _require_one_size(path, side.spec.input, theirs[path].side.spec.input)
        compared = _compare_groups(ours, theirs, shown, progress)
        examined = []
        for path, side in ours.items():
            report = None
            if layers:
                progress(f"comparing layers: {path.name}")
                report = compare_layers(path, theirs[path], compared[path], shown)
            progress(f"looking for causes: {path.name}")
            sides = (side, theirs[path].side)
            examined.append(examine(compared[path], sides, shown, report))
    return SideBySide(reference_name(reference), tuple(examined), shown)


def _require_one_size(path: Path, mine: InputSpec, theirs: InputSpec) -> None:
    sizes = [f"{each.height}x{each.width}" for each in (mine, theirs)]
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"--layers compares networks of one image size; '{path.name}' takes {sizes[0]}, and "
            f"the reference {sizes[1]}.",
            "Export both at the same size, or leave --layers out.",
        )


def _require_categories(sides: Iterable[Side], pictures: Pictures) -> None:
    if pictures.dataset is None:
        return
    from effdet_deploy.evaluation.predictions import require_common_categories

    for side in sides:
        require_common_categories(side.spec, pictures.dataset)


def _compare_groups(
    ours: dict[Path, Side], theirs: dict[Path, Reference], pictures: Pictures, progress: Progress
) -> dict[Path, Comparison]:
    """Compare all candidates; each distinct reference runs once a picture."""
    groups: dict[Reference, dict[Path, Side]] = {}
    for path, side in ours.items():
        groups.setdefault(theirs[path], {})[path] = side
    found: dict[Path, Comparison] = {}

    def tell(done: int) -> None:
        progress(f"comparing detections: {done} of {len(pictures)} pictures")

    tell(0)
    for reference, members in groups.items():
        named = {str(path): side for path, side in members.items()}
        compared = compare_all(named, reference.side, pictures.sources, progress=tell)
        found.update(zip(members, compared, strict=True))
    return found


def compare_layers(
    path: Path, reference: Reference, comparison: Comparison, pictures: Pictures
) -> LayerReport:
    """Compare the layers of the ONNX file ``path`` with its reference's on the first pictures."""
    layers, candidate, known = layer_sources(path, reference)
    mine, theirs = comparison.candidate.input, comparison.reference.input
    if mine != theirs:
        # Two kinds of input are made the same thing in different ways.
        layers = tuple(each for each in layers if not each.name.startswith(_PREPROCESS))
    canvases = pictures.letterboxed(mine, LAYER_PICTURES)
    kinds = (comparison.candidate.precision.kind, comparison.reference.precision.kind)
    return locate(layers, candidate, known, canvases, least_snr(coarser(*kinds)))


def examine(
    comparison: Comparison,
    sides: tuple[Side, Side],
    pictures: Pictures,
    layers: LayerReport | None = None,
) -> Examined:
    """Draw the conclusions from a comparison of ``sides``: candidate and reference."""
    first = load_image(pictures.sources[0])
    scores = None if pictures.dataset is None else _scores(comparison, pictures.dataset)
    causes = find_causes(comparison, *sides, first, layers)
    return Examined(comparison, break_down(comparison), scores, layers, causes)


def _scores(comparison: Comparison, dataset: CocoSet) -> Scores:
    from effdet_deploy.evaluation.accuracy import difference, measure

    ids = list(dataset.paths)
    theirs, ours = (
        measure(coco_results(comparison.images, ids, spec, candidate=is_candidate), dataset)
        for spec, is_candidate in ((comparison.reference, False), (comparison.candidate, True))
    )
    return Scores(theirs.ap, ours.ap, difference(ours, theirs))
