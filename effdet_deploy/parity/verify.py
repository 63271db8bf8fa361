"""The comparison that ends every export: an artifact against eager PyTorch."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from effdet_deploy.artifact.spec import HEAD_OUTPUTS
from effdet_deploy.detection.letterbox import to_input
from effdet_deploy.detection.postprocess import finish_heads
from effdet_deploy.errors import InputError
from effdet_deploy.parity.matching import ImagePair
from effdet_deploy.parity.metrics import TensorErrors, tensor_errors
from effdet_deploy.parity.report import ChainParity, OutputParity, ParityReport
from effdet_deploy.parity.rows import Rows, candidates_from_heads, rows_from_outputs
from effdet_deploy.parity.suppression import static_steps
from effdet_deploy.parity.tally import DetectionTally, measure_score_error
from effdet_deploy.parity.tolerances import TOLERANCES, Tolerance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import BatchSpec, DetectorSpec

    Tensors = Mapping[str, NDArray[Any]]
    Run = Callable[[NDArray[Any]], Tensors]


class Reference(Protocol):
    """What an artifact is compared with: raw heads for a batch of graph inputs.

    Both methods return ``class_logits`` ``[N,A,C]`` and ``box_regression`` ``[N,A,4]``; the second
    computes in float64.
    """

    def heads(self, batch: NDArray[Any]) -> Tensors:
        """Return the heads of a batch, computed in float32."""

    def heads64(self, batch: NDArray[Any]) -> Tensors:
        """Return the heads of a batch, computed in float64."""


@dataclass(frozen=True)
class _Known:
    """What the reference says about one image."""

    heads: Tensors
    candidates: Rows
    rows: Rows


@dataclass
class _Verification:
    spec: DetectorSpec
    inputs: list[NDArray[Any]]
    reference: Reference
    tally: DetectionTally
    errors: dict[tuple[str, int], TensorErrors] = field(
        default_factory=lambda: defaultdict(TensorErrors)
    )
    steps: int = 0
    known: dict[int, _Known] = field(default_factory=dict)

    def reference_of(self, image: int) -> _Known:
        if image not in self.known:
            heads = self.reference.heads(self.inputs[image])
            candidates, rows = _detections_of(heads, self.spec)
            self.steps = max(self.steps, static_steps(candidates, self.spec.output.iou_threshold))
            self.known[image] = _Known(heads, candidates, rows)
        return self.known[image]


def verify(
    spec: DetectorSpec,
    images: Sequence[NDArray[np.uint8]],
    reference: Reference,
    *,
    run_heads: Run | None,
    run_detections: Run | None,
    tolerance: Tolerance | None = None,
) -> ParityReport:
    """Run an artifact on ``images`` at every batch size that matters and compare it.

    Args:
        spec: of the artifact.
        images: letterboxed RGB images ``[H,W,3]`` of the spec's size; see
            :func:`~effdet_deploy.evaluation.pictures.verification_images`.
        reference: usually :class:`~effdet_deploy.pytorch.reference.EagerReference`.
        run_heads: graph input to the two raw heads, from the artifact or an instrumented copy;
            None where they cannot be had.
        run_detections: graph input to the four detection outputs; None for an artifact without
            NMS, whose heads are then finished in numpy.
        tolerance: what is asked; default by the spec's precision.
    """
    asked = tolerance or TOLERANCES[spec.precision.kind]
    inputs = [to_input(np.asarray(image)[None], spec.input) for image in images]
    state = _Verification(spec, inputs, reference, DetectionTally(spec.output, asked))
    plan = plan_batches(len(images), spec.batch)
    for position, indices in enumerate(plan):
        _run_batch(state, indices, run_heads, run_detections)
        ahead = {index for later in plan[position + 1 :] for index in later}
        state.known = {index: known for index, known in state.known.items() if index in ahead}
    return _report(state, asked, tuple(dict.fromkeys(len(indices) for indices in plan)))


def plan_batches(count: int, batch: BatchSpec) -> list[list[int]]:
    """Return the image indices of every run: each image at the largest and at the smallest size.

    A run that is not full starts over with the first images.
    """
    return [
        [index % count for index in range(start, start + size)]
        for size in dict.fromkeys((batch.maximum, batch.minimum))
        for start in range(0, count, size)
    ]


def _run_batch(
    state: _Verification,
    indices: list[int],
    run_heads: Run | None,
    run_detections: Run | None,
) -> None:
    batch = np.concatenate([state.inputs[index] for index in indices])
    try:
        heads = run_heads(batch) if run_heads else None
        found = _candidate_rows(state.spec, batch, heads, run_detections)
        _require_batch(heads, found, len(indices))
    except InputError as error:
        # A graph that was traced at one batch size refuses another or returns the wrong shape.
        state.tally.broken = f"at batch {len(indices)} the artifact failed: {error.cause}"
        return
    for position, index in enumerate(indices):
        known = state.reference_of(index)
        score_error = 0.0
        if heads is not None:
            score_error = _compare_heads(state, known, heads, position, len(indices))
        pair = ImagePair(index, known.rows, found[position], known.candidates)
        state.tally.add(pair, score_error)


def _candidate_rows(
    spec: DetectorSpec, batch: NDArray[Any], heads: Tensors | None, run_detections: Run | None
) -> list[Rows]:
    if run_detections is not None:
        return rows_from_outputs(run_detections(batch), spec.output.box_format)
    if heads is None:
        return []
    logits, regression = (heads[name] for name in HEAD_OUTPUTS)
    finished = finish_heads(logits, regression, spec)
    return rows_from_outputs(finished, spec.output.box_format)


def _require_batch(heads: Tensors | None, found: list[Rows], size: int) -> None:
    """Raise InputError unless every output has ``size`` images."""
    sizes = {"detections": len(found)} if found or heads is None else {}
    if heads is not None:
        sizes |= {name: len(heads[name]) for name in HEAD_OUTPUTS}
    for name, got in sizes.items():
        if got != size:
            raise InputError(f"{name} came back for {got} images instead of {size}.")


def _detections_of(heads: Tensors, spec: DetectorSpec) -> tuple[Rows, Rows]:
    """Return the candidates and the detections of one image's heads ``[1,A,·]``."""
    logits, regression = (heads[name] for name in HEAD_OUTPUTS)
    # An overflow shows up as a row that is not finite; numpy need not warn of it as well.
    with np.errstate(over="ignore", invalid="ignore"):
        candidates = candidates_from_heads(logits[0], regression[0], spec)
        finished = finish_heads(logits, regression, spec)
    (rows,) = rows_from_outputs(finished, spec.output.box_format)
    return candidates, rows


def _compare_heads(
    state: _Verification, known: _Known, heads: Tensors, position: int, size: int
) -> float:
    """Take the errors of one image's heads; return the score error among its candidates."""
    for name in HEAD_OUTPUTS:
        mine = heads[name][position : position + 1]
        state.errors[name, size] += tensor_errors(known.heads[name], mine)
    logits = HEAD_OUTPUTS[0]
    if known.heads[logits].shape[1:] != heads[logits].shape[1:]:
        return 0.0
    return measure_score_error(
        known.heads[logits][0], heads[logits][position], state.spec.output.candidates
    )


def _report(state: _Verification, asked: Tolerance, sizes: tuple[int, ...]) -> ParityReport:
    outputs = _judged_outputs(state, asked)
    detections = state.tally.finish()
    if detections.status == "failed" and asked.heads is not None:
        detections = state.tally.finish(own_share=_own_share(state, asked))
    steps = state.spec.output.nms_steps if state.spec.output.nms == "static" else None
    return ParityReport(
        precision=state.spec.precision.kind,
        images=len(state.inputs),
        batch_sizes=sizes,
        outputs=outputs,
        detections=detections,
        chains=ChainParity(state.steps, steps),
    )


def _judged_outputs(state: _Verification, asked: Tolerance) -> tuple[OutputParity, ...]:
    pooled: dict[str, TensorErrors] = defaultdict(TensorErrors)
    by_batch: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for (name, size), errors in state.errors.items():
        pooled[name] += errors
        by_batch[name].append((size, errors.largest))
    own: dict[str, float] = {}
    # The float64 run costs more than the float32 one: only where its answer can matter.
    if asked.heads is not None and not all(each.within(asked.heads) for each in pooled.values()):
        own = _own_errors(state)
    return tuple(
        OutputParity(
            name, errors, tuple(by_batch[name]), asked.heads, own.get(name), asked.least_snr_db
        )
        for name, errors in pooled.items()
    )


def _own_errors(state: _Verification) -> dict[str, float]:
    """Return the largest error of each of the reference's own heads against float64."""
    errors: dict[str, TensorErrors] = defaultdict(TensorErrors)
    for batch in state.inputs:
        single, double = state.reference.heads(batch), state.reference.heads64(batch)
        for name in HEAD_OUTPUTS:
            errors[name] += tensor_errors(double[name], single[name])
    return {name: each.largest for name, each in errors.items()}


def _own_share(state: _Verification, asked: Tolerance) -> float:
    """Return the share of the reference's detections that its float64 run confirms."""
    tally = DetectionTally(state.spec.output, asked)
    for index, batch in enumerate(state.inputs):
        _, single = _detections_of(state.reference.heads(batch), state.spec)
        candidates, double = _detections_of(state.reference.heads64(batch), state.spec)
        tally.add(ImagePair(index, double, single, candidates))
    return tally.finish().share
