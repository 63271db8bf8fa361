"""The comparison behind ``effdet-deploy compare``: several candidates and one reference."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effdet_deploy.detection.images import load_image
from effdet_deploy.detection.pictures import own_pictures
from effdet_deploy.diagnosis.bisecting import bisect_file, require_bisectable
from effdet_deploy.diagnosis.locating import least_snr, locate
from effdet_deploy.diagnosis.open_reference import (
    HowToRun,
    layer_sources,
    open_references,
    reference_name,
    require_layers,
    require_one_size,
)
from effdet_deploy.diagnosis.symptoms import find_causes
from effdet_deploy.errors import UsageError
from effdet_deploy.evaluation.accuracy import difference, measure, require_pycocotools
from effdet_deploy.evaluation.predictions import joined_to, notes_on
from effdet_deploy.evaluation.soundness import doubts_about
from effdet_deploy.parity.breakdown import Breakdown, break_down, coco_results
from effdet_deploy.parity.comparison import compare_all
from effdet_deploy.parity.side import open_side
from effdet_deploy.parity.tolerances import coarser
from effdet_deploy.parity.verdict import without_non_finite
from effdet_deploy.progress import silent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from effdet_deploy.detection.pictures import Pictures
    from effdet_deploy.diagnosis.bisecting import Bisection, Kind
    from effdet_deploy.diagnosis.locating import LayerReport
    from effdet_deploy.evaluation.accuracy import Difference
    from effdet_deploy.evaluation.cocoset import CocoSet
    from effdet_deploy.parity.comparison import Comparison
    from effdet_deploy.parity.side import Side
    from effdet_deploy.progress import Progress

_PREPROCESS = "preprocess."
LAYER_PICTURES = 4
"""Layers are compared on the first pictures only: a wrong layer is wrong on any picture."""


@dataclass(frozen=True)
class Scores:
    """The mAP of candidate and reference on the same pictures, as fractions, and the difference."""

    reference: float
    candidate: float
    difference: Difference


@dataclass(frozen=True, eq=False)
class Examined:
    """The comparison of one candidate, and what follows from it.

    Attributes:
        comparison: the verdict and the pictures.
        breakdown: detections by class and size, and the errors of matched pairs.
        scores: the mAP, if annotations were given.
        layers: the comparison of layers, if requested.
        causes: sentences that say why the candidate differs.
        bisection: the layers whose precision explains the loss, if requested.
    """

    comparison: Comparison
    breakdown: Breakdown
    scores: Scores | None = None
    layers: LayerReport | None = None
    causes: tuple[str, ...] = ()
    bisection: Bisection | None = None

    @property
    def passed(self) -> bool:
        """Whether the candidate agrees with the reference."""
        return self.comparison.report.passed

    def to_dict(self, pictures: Sequence[str]) -> dict[str, Any]:
        """Return everything as a document; ``pictures`` are the names of the pictures."""
        comparison = self.comparison
        document = {
            "candidate": comparison.name,
            "status": comparison.report.status,
            "causes": list(self.causes),
            "report": comparison.report.to_dict(),
            "breakdown": self.breakdown.to_dict(comparison.candidate),
            "accuracy": dataclasses.asdict(self.scores) if self.scores else None,
            "layers": self.layers.to_dict() if self.layers else None,
            "images": [
                {
                    "picture": pictures[image.index],
                    "reference": len(image.reference),
                    "candidate": len(image.candidate),
                    "matched": len(image.matching.pairs),
                    "largest_box_difference": image.matching.box_difference,
                    "largest_score_difference": image.matching.score_difference,
                }
                for image in comparison.images
            ],
        }
        return document | ({"bisection": self.bisection.to_dict()} if self.bisection else {})


@dataclass(frozen=True, eq=False)
class SideBySide:
    """All candidates compared with one reference.

    Attributes:
        reference: the reference's name.
        examined: the results of the candidates.
        pictures: the pictures that they were compared on.
        notes: how classes were matched with the annotations, and which were left out.
        doubts: signs that the annotations do not belong to the pictures; then the mAP is useless.
    """

    reference: str
    examined: tuple[Examined, ...]
    pictures: Pictures
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every candidate agrees with the reference."""
        return all(each.passed for each in self.examined)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole comparison for JSON, in which values that are not finite are None."""
        names = self.pictures.names
        document: dict[str, Any] = without_non_finite(
            {
                "reference": self.reference,
                "passed": self.passed,
                "pictures": list(names),
                "candidates": [each.to_dict(names) for each in self.examined],
            }
        )
        said = {"notes": list(self.notes), "doubts": list(self.doubts)}
        return document | {key: sentences for key, sentences in said.items() if sentences}


def compare_files(
    candidates: Sequence[Path],
    reference: str,
    pictures: Pictures | None = None,
    dataset: CocoSet | None = None,
    *,
    how: HowToRun | None = None,
    layers: bool = False,
    bisect: Kind | None = None,
    progress: Progress = silent,
) -> SideBySide:
    """Compare exported models with a reference: another exported model, or weights.

    Args:
        candidates: exported models of any kind.
        reference: the path of an exported model; or weights, which run in eager PyTorch:
            ``pretrained``, ``random``, a path or a URL.
        pictures: the pictures to compare on; default: generated ones in the first candidate's size.
        dataset: annotated pictures to compare on instead, on which the mAP is measured too.
        how: how the models are run.
        layers: also compare layer by layer; this needs ONNX files of ours.
        bisect: the precision to bisect: find the layers that explain the loss, in ONNX files.
        progress: called when a stage begins.

    Raises:
        UsageError: the models, or their layers, cannot be compared with each other.
        MissingPackageError: weights need torch, or annotations need pycocotools.
        InputError: a model, a picture or the weights are unusable.
    """
    _require_possible(candidates, reference, dataset, bisect, layers=layers)
    chosen = how or HowToRun()
    with ExitStack() as stack:
        progress("loading the models")
        settings = dataclasses.asdict(chosen)
        ours: dict[Path, Side] = {path: open_side(path, stack, **settings) for path in candidates}
        specs = {path: side.spec for path, side in ours.items()}
        shown = pictures or own_pictures(specs[candidates[0]].input)
        shown = shown if dataset is None else dataset.pictures
        notes = () if dataset is None else notes_on(dataset, specs.values())
        doubts = () if dataset is None else doubts_about(dataset)
        theirs = open_references(reference, specs, chosen, stack)
        for path, spec in specs.items() if layers else ():
            require_one_size(path, spec.input, theirs[path].spec.input)
        compared = _compare_groups(ours, theirs, shown, progress)
        examined = []
        for path, side in ours.items():
            report = None
            if layers:
                progress(f"comparing layers: {path.name}")
                report = compare_layers(path, theirs[path], reference, compared[path], shown)
            progress(f"looking for causes: {path.name}")
            examined.append(examine(compared[path], (side, theirs[path]), shown, dataset, report))
    if bisect is not None:
        found = [bisect_file(path, Path(reference), bisect, shown, progress) for path in ours]
        examined = [
            dataclasses.replace(each, bisection=bisection)
            for each, bisection in zip(examined, found, strict=True)
        ]
    return SideBySide(reference_name(reference), tuple(examined), shown, notes, doubts)


def _require_possible(
    candidates: Sequence[Path],
    reference: str,
    dataset: CocoSet | None,
    bisect: Kind | None,
    *,
    layers: bool,
) -> None:
    """Report missing packages and unsuitable files before anything is loaded."""
    if not candidates:
        raise UsageError("There is no candidate to compare.", "Name at least one model.")
    if bisect is not None:
        require_bisectable(candidates, reference, bisect)
    if layers:
        require_layers(candidates, reference)
    if dataset is not None:
        require_pycocotools()


def _compare_groups(
    ours: Mapping[Path, Side],
    theirs: Mapping[Path, Side],
    pictures: Pictures,
    progress: Progress,
) -> dict[Path, Comparison]:
    """Compare all candidates; every distinct reference runs once per picture."""
    found: dict[Path, Comparison] = {}

    def tell(done: int) -> None:
        progress(f"comparing detections: {done} of {len(pictures)} pictures")

    tell(0)
    for reference in dict.fromkeys(theirs.values()):
        members = [path for path in ours if theirs[path] is reference]
        named = {str(path): ours[path] for path in members}
        compared = compare_all(named, reference, pictures.sources, progress=tell)
        found.update(zip(members, compared, strict=True))
    return found


def compare_layers(
    path: Path, reference: Side, given: str, comparison: Comparison, pictures: Pictures
) -> LayerReport:
    """Compare the layers of the ONNX file ``path`` with its reference's on the first pictures.

    ``given`` is the reference as the user named it.
    """
    layers, candidate, known = layer_sources(path, reference, given)
    specs = (comparison.candidate, comparison.reference)
    if specs[0].input != specs[1].input:
        # Different kinds of input are preprocessed in different ways.
        layers = tuple(each for each in layers if not each.name.startswith(_PREPROCESS))
    canvases = pictures.letterboxed(specs[0].input, LAYER_PICTURES)
    precision = coarser(*(each.precision.kind for each in specs))
    return locate(layers, candidate, known, canvases, least_snr(precision))


def examine(
    comparison: Comparison,
    sides: tuple[Side, Side],
    pictures: Pictures,
    dataset: CocoSet | None = None,
    layers: LayerReport | None = None,
) -> Examined:
    """Draw conclusions from a comparison of ``sides``, which are candidate and reference.

    ``dataset`` is the annotated set that ``pictures`` belong to, if there is one.
    """
    scores = None
    specs = (comparison.reference, comparison.candidate)
    if dataset is not None:
        theirs, ours = (
            measure(
                joined_to(spec, dataset).of_results(
                    coco_results(
                        comparison.images, list(dataset.paths), spec, candidate=spec is specs[1]
                    )
                ),
                dataset,
            )
            for spec in specs
        )
        scores = Scores(theirs.ap, ours.ap, difference(ours, theirs))
    picture = load_image(pictures.sources[0], comparison.reference.input.channels)
    causes = find_causes(comparison, *sides, picture)
    if layers is not None and not comparison.report.passed:
        causes += (layers.sentence,)
    return Examined(comparison, break_down(comparison), scores, layers, causes)
