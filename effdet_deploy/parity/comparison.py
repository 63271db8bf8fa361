"""Artifacts side by side on pictures, without torch."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.artifact.spec import HEAD_OUTPUTS, INPUT_NAME
from effdet_deploy.detection.detector import Detector
from effdet_deploy.detection.images import load_image
from effdet_deploy.detection.letterbox import letterbox, to_input
from effdet_deploy.detection.postprocess import finish_heads
from effdet_deploy.errors import UsageError
from effdet_deploy.parity.matching import ImagePair
from effdet_deploy.parity.metrics import TensorErrors, tensor_errors
from effdet_deploy.parity.report import OutputParity, ParityReport
from effdet_deploy.parity.rows import Rows, candidates_from_heads, rows_from_outputs
from effdet_deploy.parity.tally import DetectionTally, measure_score_error
from effdet_deploy.parity.tolerances import TOLERANCES, Tolerance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import DetectorSpec, Precision
    from effdet_deploy.detection.images import ImageSource
    from effdet_deploy.parity.matching import Matching
    from effdet_deploy.runtimes.adapter import Runtime

    Artifact = Detector | str | Path
    Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Side:
    """One artifact of a comparison.

    Attributes:
        detector: gives the detections.
        heads: gives the raw heads of an artifact that has none among its outputs, such as a copy
            with the head tensors added; None where they cannot be had.
        heads64: graph input to raw heads computed in float64, of a reference that can: what its
            own rounding amounts to is then not held against a candidate.
    """

    detector: Detector
    heads: Runtime | None = None
    heads64: Callable[[NDArray[Any]], Mapping[str, NDArray[Any]]] | None = None

    @property
    def spec(self) -> DetectorSpec:
        """What the artifact says about itself."""
        return self.detector.spec


@dataclass(frozen=True, eq=False)
class Answer:
    """What one artifact says about one picture.

    Attributes:
        rows: detections, boxes in pixels of the picture, unclipped.
        candidates: what entered NMS, in the same pixels; None where the heads are unknown.
        heads: ``class_logits`` ``[1,A,C]`` and ``box_regression`` ``[1,A,4]``, or None.
        batch: the graph input.
    """

    rows: Rows
    candidates: Rows | None
    heads: Tensors | None
    batch: NDArray[Any]


@dataclass(frozen=True, eq=False)
class ComparedImage:
    """One picture's detections on both sides, those below the common score floor left out.

    ``size`` is (height, width) of the picture.
    """

    index: int
    size: tuple[int, int]
    reference: Rows
    candidate: Rows
    matching: Matching


@dataclass(frozen=True, eq=False)
class Comparison:
    """A candidate against the reference: the verdict, and every picture it rests on."""

    name: str
    candidate: DetectorSpec
    reference: DetectorSpec
    report: ParityReport
    images: tuple[ComparedImage, ...]


def compare(
    candidate: Artifact,
    reference: Artifact,
    images: Sequence[ImageSource],
    tolerance: Tolerance | None = None,
) -> ParityReport:
    """Run two artifacts on the same pictures and compare what they find.

    Detections are compared in pixels of the picture, from the higher of the two score floors;
    raw heads too where both artifacts give them for the same anchors and classes.

    Args:
        candidate: a detector, or the path of an artifact.
        reference: the same.
        images: whatever :func:`effdet_deploy.detection.images.load_image` reads.
        tolerance: what is asked; default by the coarser precision of the two.

    Raises:
        UsageError: no images, or the two do not tell the same classes apart.
    """
    with ExitStack() as stack:
        ours, theirs = (
            Side(each if isinstance(each, Detector) else stack.enter_context(Detector.load(each)))
            for each in (candidate, reference)
        )
        (found,) = compare_all({"": ours}, theirs, images, tolerance)
        return found.report


def compare_all(
    candidates: Mapping[str, Side],
    reference: Side,
    images: Sequence[ImageSource],
    tolerance: Tolerance | None = None,
    progress: Callable[[int], None] = lambda _done: None,
) -> list[Comparison]:
    """Compare several artifacts with one reference, which runs once a picture.

    Args:
        candidates: by the name that each goes by.
        reference: what they are compared with.
        images: whatever :func:`effdet_deploy.detection.images.load_image` reads.
        tolerance: what is asked; default by the coarser precision of each pair.
        progress: told how many pictures are done.

    Raises:
        UsageError: no images, or a candidate that does not tell the reference's classes apart.
    """
    if not len(images):
        raise UsageError("There is no image to compare on.", "Pass at least one picture.")
    for side in candidates.values():
        _require_same_classes(side.spec, reference.spec)
    pairings = [_pairing(name, side, reference, tolerance) for name, side in candidates.items()]
    for index, source in enumerate(images):
        picture = load_image(source)
        known = answer(reference, picture)
        for each in pairings:
            each.add(index, picture, answer(each.side, picture), known)
        progress(index + 1)
    return [each.finish() for each in pairings]


@dataclass(eq=False)
class _Pairing:
    """What is gathered of one candidate while the pictures go by."""

    name: str
    side: Side
    reference: Side
    asked: Tolerance
    floor: float
    tally: DetectionTally
    errors: dict[str, TensorErrors] = field(default_factory=dict)
    own_errors: dict[str, float] = field(default_factory=dict)
    images: list[ComparedImage] = field(default_factory=list)

    def add(self, index: int, picture: NDArray[np.uint8], mine: Answer, known: Answer) -> None:
        """Take one picture's answers."""
        for each in (mine, known):
            if each.heads is not None:
                self.tally.add_heads(*(each.heads[name] for name in HEAD_OUTPUTS))
        score_error = self._compare_heads(mine, known)
        pair = ImagePair(
            index,
            _above(known.rows, self.floor),
            _above(mine.rows, self.floor),
            None if known.candidates is None else _above(known.candidates, self.floor),
        )
        matching = self.tally.add(pair, score_error)
        size = (picture.shape[0], picture.shape[1])
        self.images.append(ComparedImage(index, size, pair.reference, pair.candidate, matching))

    def _compare_heads(self, mine: Answer, known: Answer) -> float:
        """Take the errors of the heads; return the score error among their candidates."""
        if mine.heads is None or known.heads is None or not _same_grid(self.side, self.reference):
            return 0.0
        for name in HEAD_OUTPUTS:
            found = tensor_errors(known.heads[name], mine.heads[name])
            self.errors[name] = self.errors.get(name, TensorErrors()) + found
            if self.asked.heads is not None and not found.within(self.asked.heads):
                self._measure_own_error(known)
        logits = HEAD_OUTPUTS[0]
        return measure_score_error(
            known.heads[logits][0], mine.heads[logits][0], self.reference.spec.output.candidates
        )

    def _measure_own_error(self, known: Answer) -> None:
        """Take the reference's own error against float64, once: it costs more than all else."""
        if self.own_errors or known.heads is None or self.reference.heads64 is None:
            return
        double = self.reference.heads64(known.batch[:1])
        self.own_errors = {
            name: tensor_errors(double[name], known.heads[name]).largest for name in HEAD_OUTPUTS
        }

    def finish(self) -> Comparison:
        """Judge what was gathered."""
        sides = (self.side.spec, self.reference.spec)
        report = ParityReport(
            precision=coarser(*(each.precision.kind for each in sides)),
            images=len(self.images),
            batch_sizes=tuple(sorted({each.batch.minimum for each in sides})),
            outputs=tuple(
                OutputParity(
                    name,
                    each,
                    tolerance=self.asked.heads,
                    own_error=self.own_errors.get(name),
                    least_snr_db=self.asked.least_snr_db,
                )
                for name, each in self.errors.items()
            ),
            detections=self.tally.finish(),
        )
        return Comparison(self.name, *sides, report, tuple(self.images))


def _pairing(name: str, side: Side, reference: Side, tolerance: Tolerance | None) -> _Pairing:
    specs = (side.spec, reference.spec)
    asked = tolerance or TOLERANCES[coarser(*(each.precision.kind for each in specs))]
    floor = max(each.output.score_threshold for each in specs)
    output = dataclasses.replace(reference.spec.output, score_threshold=floor)
    return _Pairing(name, side, reference, asked, floor, DetectionTally(output, asked))


def answer(side: Side, picture: NDArray[np.uint8], *, swap_channels: bool = False) -> Answer:
    """Run one side on an RGB picture uint8 ``[h,w,3]``, or on it with red and blue swapped."""
    spec = side.spec
    canvas, placed = letterbox(picture, spec.input.height, spec.input.width, spec.input.fill)
    if swap_channels:
        canvas = canvas[..., ::-1]
    batch = to_input(np.repeat(canvas[None], spec.batch.minimum, axis=0), spec.input)
    # The runtime is asked directly: a Detector refuses NaN, which here is a finding.
    outputs = _first_image(side.detector.runtime, batch)
    heads = None
    if spec.output.nms == "none":
        heads = outputs
    elif side.heads is not None:
        heads = _first_image(side.heads, batch)
    with np.errstate(over="ignore", invalid="ignore"):
        if heads is not None and spec.output.nms == "none":
            outputs = finish_heads(heads[HEAD_OUTPUTS[0]], heads[HEAD_OUTPUTS[1]], spec)
        (rows,) = rows_from_outputs(outputs, spec.output.box_format)
        candidates = None
        if heads is not None:
            logits, regression = (heads[name][0] for name in HEAD_OUTPUTS)
            candidates = candidates_from_heads(logits, regression, spec)
            candidates = _in_picture(candidates, placed.scale)
    return Answer(_in_picture(rows, placed.scale), candidates, heads, batch)


def _first_image(runtime: Runtime, batch: NDArray[Any]) -> Tensors:
    return {name: each[:1] for name, each in runtime.run({INPUT_NAME: batch}).items()}


def _in_picture(rows: Rows, scale: float) -> Rows:
    """Return rows of network pixels in pixels of the picture."""
    return dataclasses.replace(rows, boxes=rows.boxes / scale)


def _above(rows: Rows, floor: float) -> Rows:
    """Leave out the rows below ``floor``."""
    # Written so that a score that is NaN stays in and is found.
    kept = ~(rows.scores < floor)
    # Rows that the floor removes free their places: only a list that is still full has a last row.
    return Rows(rows.boxes[kept], rows.scores[kept], rows.classes[kept], rows.limit)


def _same_grid(ours: Side, theirs: Side) -> bool:
    one, other = ours.spec, theirs.spec
    sizes = [(each.input.height, each.input.width) for each in (one, other)]
    return one.anchors == other.anchors and sizes[0] == sizes[1]


def _require_same_classes(ours: DetectorSpec, theirs: DetectorSpec) -> None:
    if ours.num_classes != theirs.num_classes:
        raise UsageError(
            f"The candidate has {ours.num_classes} classes, the reference {theirs.num_classes}.",
            "Compare artifacts of one model.",
        )


def coarser(one: Precision, other: Precision) -> Precision:
    """Return the less exact of two precisions."""
    order = list(TOLERANCES)
    return max(one, other, key=order.index)
