"""Two artifacts side by side, without torch."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.detector import Detector
from effdet_deploy.errors import UsageError
from effdet_deploy.images import letterbox, load_image, to_input
from effdet_deploy.parity.matching import ImagePair
from effdet_deploy.parity.metrics import TensorErrors, tensor_errors
from effdet_deploy.parity.report import OutputParity, ParityReport
from effdet_deploy.parity.rows import Rows, candidates_from_heads, rows_from_outputs
from effdet_deploy.parity.tally import DetectionTally, measure_score_error
from effdet_deploy.parity.tolerances import TOLERANCES, Tolerance
from effdet_deploy.postprocess import finish_heads
from effdet_deploy.spec import HEAD_OUTPUTS, INPUT_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.images import ImageSource
    from effdet_deploy.spec import DetectorSpec, Precision

    Artifact = Detector | str | Path
    Tensors = dict[str, NDArray[Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class _Answer:
    """What one artifact says about one picture; boxes in pixels of the picture, unclipped."""

    rows: Rows
    candidates: Rows | None
    heads: Tensors | None


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
        images: whatever :func:`effdet_deploy.images.load_image` reads.
        tolerance: what is asked; default by the coarser precision of the two.

    Raises:
        UsageError: no images, or the two do not tell the same classes apart.
    """
    if not len(images):
        raise UsageError("There is no image to compare on.", "Pass at least one picture.")
    with ExitStack() as stack:
        ours, theirs = (
            each if isinstance(each, Detector) else stack.enter_context(Detector.load(each))
            for each in (candidate, reference)
        )
        _require_same_classes(ours.spec, theirs.spec)
        return _compare(ours, theirs, images, tolerance)


def _compare(
    ours: Detector, theirs: Detector, images: Sequence[ImageSource], tolerance: Tolerance | None
) -> ParityReport:
    precision = _coarser(ours.spec.precision.kind, theirs.spec.precision.kind)
    asked = tolerance or TOLERANCES[precision]
    floor = max(each.spec.output.score_threshold for each in (ours, theirs))
    output = dataclasses.replace(theirs.spec.output, score_threshold=floor)
    tally = DetectionTally(output, asked)
    errors: dict[str, TensorErrors] = {}
    for index, source in enumerate(images):
        picture = load_image(source)
        mine, other = (_answer(each, picture, floor) for each in (ours, theirs))
        score_error = 0.0
        if mine.heads is not None and other.heads is not None and _same_grid(ours, theirs):
            for name in HEAD_OUTPUTS:
                found = tensor_errors(other.heads[name], mine.heads[name])
                errors[name] = errors.get(name, TensorErrors()) + found
            theirs_logits, our_logits = other.heads[HEAD_OUTPUTS[0]], mine.heads[HEAD_OUTPUTS[0]]
            score_error = measure_score_error(theirs_logits[0], our_logits[0], output.candidates)
        tally.add(ImagePair(index, other.rows, mine.rows, other.candidates), score_error)
    return ParityReport(
        precision=precision,
        images=len(images),
        batch_sizes=tuple(sorted({each.spec.batch.minimum for each in (ours, theirs)})),
        outputs=tuple(
            OutputParity(name, each, tolerance=asked.heads) for name, each in errors.items()
        ),
        detections=tally.finish(),
    )


def _answer(detector: Detector, picture: NDArray[np.uint8], floor: float) -> _Answer:
    spec = detector.spec
    canvas, placed = letterbox(picture, spec.input.height, spec.input.width, spec.input.fill)
    batch = to_input(np.repeat(canvas[None], spec.batch.minimum, axis=0), spec.input)
    # The runtime is asked directly: a Detector refuses NaN, which here is a finding.
    outputs = {name: each[:1] for name, each in detector.runtime.run({INPUT_NAME: batch}).items()}
    if spec.output.nms != "none":
        (rows,) = rows_from_outputs(outputs, spec.output.box_format)
        return _Answer(_in_picture(rows, placed.scale, floor), None, None)
    with np.errstate(over="ignore", invalid="ignore"):
        logits, regression = (outputs[name] for name in HEAD_OUTPUTS)
        (rows,) = rows_from_outputs(finish_heads(logits, regression, spec), spec.output.box_format)
        candidates = candidates_from_heads(logits[0], regression[0], spec)
    placed_rows, placed_candidates = (
        _in_picture(each, placed.scale, floor) for each in (rows, candidates)
    )
    return _Answer(placed_rows, placed_candidates, outputs)


def _in_picture(rows: Rows, scale: float, floor: float) -> Rows:
    """Return rows of network pixels in pixels of the picture, those below ``floor`` left out."""
    # Written so that a score that is NaN stays in and is found.
    kept = ~(rows.scores < floor)
    # Rows that the floor removes free their places: only a list that is still full has a last row.
    return Rows(rows.boxes[kept] / scale, rows.scores[kept], rows.classes[kept], rows.limit)


def _same_grid(ours: Detector, theirs: Detector) -> bool:
    one, other = ours.spec, theirs.spec
    sizes = [(each.input.height, each.input.width) for each in (one, other)]
    return one.anchors == other.anchors and sizes[0] == sizes[1]


def _require_same_classes(ours: DetectorSpec, theirs: DetectorSpec) -> None:
    if ours.num_classes != theirs.num_classes:
        raise UsageError(
            f"The candidate has {ours.num_classes} classes, the reference {theirs.num_classes}.",
            "Compare artifacts of one model.",
        )


def _coarser(one: Precision, other: Precision) -> Precision:
    order = list(TOLERANCES)
    return max(one, other, key=order.index)
