"""Candidates compared with a reference on pictures, for exports, builds and ``compare``.

:func:`verify` judges one candidate at its smallest and largest batch size; :func:`compare_all`
compares several with one reference, picture by picture. Both functions collect and judge results
with :class:`_Pairing`.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy.artifact.spec import HEAD_OUTPUTS
from effdet_deploy.detection.detector import Detector
from effdet_deploy.detection.images import load_image
from effdet_deploy.detection.pipeline import in_threads
from effdet_deploy.errors import InputError, UsageError
from effdet_deploy.parity.fp16_cost import Fp16Cost
from effdet_deploy.parity.matching import ComparedImage, judge_detections, match_rows
from effdet_deploy.parity.metrics import TensorErrors, tensor_errors
from effdet_deploy.parity.side import answers, ask, graph_input, reach_of, score_error, side_of
from effdet_deploy.parity.suppression import static_steps
from effdet_deploy.parity.tolerances import TOLERANCES, Tolerance, coarser
from effdet_deploy.parity.verdict import ChainParity, OutputParity, ParityReport, ReachParity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import BatchSpec, DetectorSpec
    from effdet_deploy.detection.images import ImageSource
    from effdet_deploy.parity.side import Answer, Side

_OWN_ERROR_IMAGES = 16
"""A float64 run takes more time than everything else: the network's own error is measured only on
the images whose heads differ most, at most on this many."""
_FP16_IMAGES = 4
"""Pictures on which the cost of FP16 is measured, with three more runs per picture."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """A candidate compared with the reference: the verdict, and every picture behind it."""

    name: str
    candidate: DetectorSpec
    reference: DetectorSpec
    report: ParityReport
    images: tuple[ComparedImage, ...]


def compare(
    candidate: Detector | str | Path,
    reference: Detector | str | Path,
    images: Sequence[ImageSource],
    tolerance: Tolerance | None = None,
) -> ParityReport:
    """Run two artifacts on the same pictures and compare what they find.

    Detections are compared in pixels of the picture, above the higher of the two score thresholds;
    raw heads are compared too if both artifacts give them for the same anchors and classes.

    Args:
        candidate: a detector, or the path of an artifact.
        reference: a detector, or the path of an artifact.
        images: anything that :func:`effdet_deploy.detection.images.load_image` reads.
        tolerance: the allowed differences; default: those of the coarser precision.

    Raises:
        UsageError: there are no images, or the artifacts have different numbers of classes.
    """
    with ExitStack() as stack:
        detectors = (
            each if isinstance(each, Detector) else stack.enter_context(Detector.load(each))
            for each in (candidate, reference)
        )
        ours, theirs = (side_of(each.runtime) for each in detectors)
        (found,) = compare_all({"": ours}, theirs, images, tolerance)
        return found.report


def compare_all(
    candidates: Mapping[str, Side],
    reference: Side,
    images: Sequence[ImageSource],
    tolerance: Tolerance | None = None,
    progress: Callable[[int], None] = lambda _done: None,
) -> list[Comparison]:
    """Compare several candidates with one reference, which runs once per picture.

    Args:
        candidates: the candidates by their names.
        reference: the model that they are compared with.
        images: anything that :func:`effdet_deploy.detection.images.load_image` reads.
        tolerance: the allowed differences; default: those of a pair's coarser precision.
        progress: called with the number of pictures done.

    Raises:
        UsageError: there are no images, or a candidate's number of classes differs.
    """
    if not len(images):
        raise UsageError("There are no pictures to compare on.", "Pass at least one picture.")
    known_classes = reference.spec.num_classes
    for name, side in candidates.items():
        if side.spec.num_classes != known_classes:
            raise UsageError(
                f"The candidate '{name}' has {side.spec.num_classes} classes, but the reference "
                f"has {known_classes}.",
                "Compare artifacts of the same model.",
            )
    pairings = [_Pairing(name, side, reference, tolerance) for name, side in candidates.items()]
    # A picture gets all channels that any model takes; every model uses only its own channels.
    channels = max(each.spec.input.channels for each in (reference, *candidates.values()))
    # The next picture is decoded while this one is run.
    for index, picture in enumerate(in_threads(partial(load_image, channels=channels), images, 1)):
        (known,) = ask(reference, [picture])
        for each in pairings:
            (found,) = ask(each.candidate, [picture])
            expecting = each.expecting_fp16(index, known, picture)
            each.add(index, found, expecting, floor=each.output.score_threshold)
        progress(index + 1)
    return [each.finish(images) for each in pairings]


def verify(
    candidate: Side,
    reference: Side,
    images: Sequence[ImageSource],
    tolerance: Tolerance | None = None,
) -> ParityReport:
    """Run a candidate at its largest and smallest batch and compare every row of its outputs.

    Args:
        candidate: the artifact to judge.
        reference: the model to compare with; it runs every picture once and alone.
        images: usually :func:`~effdet_deploy.detection.pictures.verification_images`.
        tolerance: the allowed differences; default: those of the coarser precision.
    """
    output, batch = candidate.spec.output, candidate.spec.batch
    pictures = [load_image(each, candidate.spec.input.channels) for each in images]
    pairing = _Pairing("", candidate, reference, tolerance)
    batches = divide_into_batches(len(images), batch)
    known: dict[int, Answer] = {}
    steps, in_steps = 0, output.nms == "static" and output.nms_form != "greedy"
    for position, indices in enumerate(batches):
        try:
            found = ask(candidate, [pictures[index] for index in indices])
        except InputError as error:
            # A graph that was traced at one batch size fails, or returns a wrong shape, at another.
            pairing.broken = f"at batch {len(indices)} the artifact failed: {error.cause}"
            continue
        for index, answer in zip(indices, found, strict=True):
            if index not in known:
                picture = pictures[index]
                (known[index],) = ask(reference, [picture])
                known[index] = pairing.expecting_fp16(index, known[index], picture)
                if (inputs := known[index].nms_inputs) is not None:
                    entering = inputs.take(np.arange(min(len(inputs), output.candidates)))
                    entered = entering.as_nms_sees_them(output)
                    steps = max(steps, static_steps(entered, output.iou_threshold))
            pairing.add(index, answer, known[index], batch=len(indices))
        ahead = {index for later in batches[position + 1 :] for index in later}
        known = {index: answer for index, answer in known.items() if index in ahead}
    return dataclasses.replace(
        pairing.finish(images).report,
        batch_sizes=tuple(dict.fromkeys(len(indices) for indices in batches)),
        chains=ChainParity(steps, output.nms_steps if in_steps else None),
    )


def divide_into_batches(count: int, batch: BatchSpec) -> list[list[int]]:
    """Return the image indices of every run: all images at the largest and smallest batch size.

    A run that is not full is filled up with the first images.
    """
    return [
        [index % count for index in range(start, start + size)]
        for size in dict.fromkeys((batch.maximum, batch.minimum))
        for start in range(0, count, size)
    ]


class _Pairing:
    """The results of one candidate, collected picture by picture and judged at the end."""

    def __init__(
        self, name: str, candidate: Side, reference: Side, tolerance: Tolerance | None
    ) -> None:
        self.name, self.candidate, self.reference = name, candidate, reference
        specs = (candidate.spec, reference.spec)
        self.precision = coarser(*(each.precision.kind for each in specs))
        self.asked = tolerance or TOLERANCES[self.precision]
        self.output = dataclasses.replace(
            reference.spec.output,
            score_threshold=max(each.output.score_threshold for each in specs),
            candidates=min(each.output.candidates for each in specs),
        )
        most = reference.spec.output.candidates
        considers_more = most > self.output.candidates
        self._reach = ReachParity(0, self.output.candidates, most) if considers_more else None
        # Heads can be compared row by row only if both sides have the same anchors.
        self.same_grid = len({(s.anchors, s.input.height, s.input.width) for s in specs}) == 1
        self._fp16: Fp16Cost | None = None
        if self.same_grid and candidate.spec.precision.kind == "fp16":
            self._fp16 = Fp16Cost(candidate.spec, rounds=candidate.precision == "fp16")
        self._own_fp16: list[ComparedImage] = []
        self._from_own_heads: list[ComparedImage] = []
        self.broken = ""
        self._compared: list[ComparedImage] = []
        self._errors: dict[str, dict[int, TensorErrors]] = defaultdict(
            lambda: defaultdict(TensorErrors)
        )
        self._worst: dict[int, float] = {}
        self._score_error = 0.0
        self._non_finite = 0

    def expecting_fp16(self, index: int, known: Answer, picture: NDArray[np.uint8]) -> Answer:
        """Return the reference's answer; for an FP16 candidate, add the heads with FP16 weights.

        Args:
            index: the number of the picture; the cost of FP16 is measured on the first few.
            known: the reference's answer.
            picture: RGB uint8 ``[h,w,3]``.
        """
        if self._fp16 is None or known.heads is None or index >= _FP16_IMAGES:
            return known
        batch, placed = graph_input(self.reference.spec, [picture])
        effects = self.reference.effects16(batch, self.candidate.spec.precision.kept)
        if effects is None:
            return known
        heads = known.heads
        weights, moved, whole = (
            {name: heads[name] + each[name] for name in heads} for each in effects
        )
        self._fp16.add_own(heads, weights, moved, whole)
        (own,) = answers(self.reference.spec, placed, whole, None, len(batch))
        self._own_fp16.append(self._matched(index, known, own))
        return dataclasses.replace(known, expected=weights)

    def add(
        self, index: int, mine: Answer, known: Answer, *, floor: float = 0.0, batch: int = 0
    ) -> None:
        """Add the answers of both sides for a picture.

        Args:
            index: the number of the picture.
            mine: the candidate's answer.
            known: the reference's answer.
            floor: rows with lower scores are left out, as in a Detector; 0 keeps every row that the
                artifact gives.
            batch: the batch size of the candidate's run, if there are runs of several sizes.
        """
        # NaN and infinity are counted in all heads, because not all heads are compared below.
        for heads in (mine.heads, known.heads):
            for each in (heads or {}).values():
                self._non_finite += int(np.count_nonzero(~np.isfinite(each)))
        if mine.heads is not None and known.heads is not None and self.same_grid:
            for name in HEAD_OUTPUTS:
                found = tensor_errors(known.heads[name], mine.heads[name])
                self._errors[name][batch] += found
                self._worst[index] = max(self._worst.get(index, 0.0), found.largest)
            self._score_error = max(self._score_error, score_error(known, mine))
            if self._fp16 is not None and known.expected is not None:
                self._fp16.add(known.expected, mine.heads)
                (again,) = answers(mine.spec, [mine.placed], mine.heads, None)
                self._from_own_heads.append(self._matched(index, again, mine))
        self._compared.append(self._matched(index, known, mine, floor))
        if self._reach is not None:
            self._reach = _farther(self._reach, known, floor)

    def _matched(
        self, index: int, known: Answer, mine: Answer, floor: float = 0.0
    ) -> ComparedImage:
        rows, others = known.rows.above(floor), mine.rows.above(floor)
        matching = match_rows(rows, others, self.asked.iou)
        inputs = None if known.nms_inputs is None else known.nms_inputs.above(floor)
        return ComparedImage(index, known.placed.image, rows, others, matching, inputs)

    def finish(self, sources: Sequence[ImageSource]) -> Comparison:
        """Judge the collected results; ``sources`` are the pictures of the comparison."""
        judged = judge_detections(self._compared, self.output, self.asked, self._score_error)
        detections = dataclasses.replace(
            judged,
            non_finite=judged.non_finite + self._non_finite,
            broken=self.broken,
            fp16_share=self._fp16_share(),
        )
        pooled = {name: sum(e.values(), TensorErrors()) for name, e in self._errors.items()}
        allowed = self.asked.heads
        outputs = tuple(
            OutputParity(
                name,
                errors,
                tuple((size, e.largest) for size, e in self._errors[name].items() if size),
                allowed,
                least_snr_db=self.asked.least_snr_db,
                levels=() if self._fp16 is None else self._fp16.levels(name),
                fp16_snr_db=None if self._fp16 is None else self._fp16.snr_db(name),
            )
            for name, errors in pooled.items()
        )
        measured = allowed is not None or (self._fp16 is not None and bool(self._own_fp16))
        beyond = measured and any(each.status == "failed" for each in outputs)
        failed = allowed is not None and detections.status == "failed"
        if beyond or failed:
            own_errors, share = self._own_error(sources)
            if beyond:
                outputs = tuple(
                    dataclasses.replace(each, own_error=own_errors.get(each.name))
                    for each in outputs
                )
            detections = dataclasses.replace(detections, own_share=share if failed else None)
        specs = (self.candidate.spec, self.reference.spec)
        sizes = tuple(sorted({each.batch.minimum for each in specs}))
        report = ParityReport(
            self.precision, len(sources), sizes, outputs, detections, reach=self._reach
        )
        # The boxes that entered NMS are no longer needed, and take most of the memory.
        images = tuple(dataclasses.replace(each, nms_inputs=None) for each in self._compared)
        return Comparison(self.name, *specs, report, images)

    def _fp16_share(self) -> float | None:
        """Return the share of its detections that the reference keeps in FP16, or None.

        The share is given only if the candidate's detections follow from its own heads, because
        the verdict on the heads then covers the detections too.
        """
        own = judge_detections(self._own_fp16, self.output, self.asked)
        made = judge_detections(self._from_own_heads, self.output, TOLERANCES["fp32"])
        return own.plain_share if own.total and made.status == "passed" else None

    def _own_error(self, sources: Sequence[ImageSource]) -> tuple[dict[str, float], float | None]:
        """Compare the reference's float32 run with its float64 run, if it has both.

        Returns:
            The largest error of each head, and the share of detections that float64 confirms.
        """
        errors: dict[str, float] = dict.fromkeys(HEAD_OUTPUTS, 0.0)
        compared = []
        ranked = sorted(range(len(sources)), key=lambda index: -self._worst.get(index, 0.0))
        for index in ranked[:_OWN_ERROR_IMAGES]:
            picture = load_image(sources[index], self.reference.spec.input.channels)
            batch, placed = graph_input(self.reference.spec, [picture])
            heads = (self.reference.heads64(batch), self.reference.heads(batch))
            if heads[0] is None or heads[1] is None:
                return {}, None
            for name in HEAD_OUTPUTS:
                found = tensor_errors(heads[0][name], heads[1][name])
                errors[name] = max(errors[name], found.largest)
            (exact,), (single,) = (
                answers(self.reference.spec, placed, each, None, len(batch)) for each in heads
            )
            compared.append(self._matched(index, exact, single))
        return errors, judge_detections(compared, self.output, self.asked).share


def _farther(reach: ReachParity, known: Answer, floor: float) -> ReachParity:
    """Return ``reach`` brought up to date with the reference's answer for one more picture."""
    needed = reach_of(known, floor)
    if known.nms_inputs is None or needed <= reach.allowed:
        return dataclasses.replace(reach, needed=max(needed, reach.needed))
    ends = float(known.nms_inputs.scores[reach.allowed - 1])
    return dataclasses.replace(
        reach, needed=max(needed, reach.needed), last_score=max(ends, reach.last_score or 0.0)
    )
