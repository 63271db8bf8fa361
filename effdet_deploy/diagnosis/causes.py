"""What a failed comparison means: the faults that can be told by trying them out."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effdet_deploy.artifact.spec import HEAD_OUTPUTS
from effdet_deploy.detection.postprocess import finish_heads
from effdet_deploy.parity.matching import match_rows
from effdet_deploy.parity.metrics import is_explained, tensor_errors
from effdet_deploy.parity.rows import Rows, rows_from_outputs
from effdet_deploy.parity.side import ask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import AnchorSpec, DetectorSpec
    from effdet_deploy.diagnosis.layers import LayerReport
    from effdet_deploy.parity.comparison import Comparison
    from effdet_deploy.parity.side import Answer, Side, Tensors

_SPEC_FIELDS = {
    "input": ("height", "width", "mean", "std", "fill"),
    "anchors": ("min_level", "max_level", "octave_scales", "aspect_ratios", "scale"),
    "output": ("score_threshold", "iou_threshold", "candidates", "max_detections"),
}
"""What both specs must say alike for the same detections to come out."""
_SAME_IOU = 0.99
_EXPLAINED_SHARE = 0.95
"""Of detections that must be the same for an explanation to hold."""


@dataclass(frozen=True, eq=False)
class _Probe:
    """What both sides say about one picture."""

    candidate: Side
    picture: NDArray[np.uint8]
    mine: Answer
    known: Answer


def find_causes(
    comparison: Comparison,
    candidate: Side,
    reference: Side,
    picture: NDArray[np.uint8],
    layers: LayerReport | None = None,
) -> tuple[str, ...]:
    """Say in sentences what makes a candidate differ, as far as it can be told.

    Args:
        comparison: of the two.
        candidate: the artifact in question.
        reference: what it is compared with.
        picture: RGB uint8 ``[h,w,3]`` that explanations are tried on.
        layers: the comparison of layers, where it was made.
    """
    found = list(_spec_differences(comparison.candidate, comparison.reference))
    if comparison.report.passed:
        return tuple(found)
    (mine,), (known,) = (ask(side, [picture]) for side in (candidate, reference))
    probe = _Probe(candidate, picture, mine, known)
    found += filter(None, (_swapped_channels(probe), _behind_the_heads(probe, comparison)))
    if layers is not None:
        found.append(layer_sentence(layers))
    return tuple(found)


def _spec_differences(ours: DetectorSpec, theirs: DetectorSpec) -> Iterator[str]:
    for part, names in _SPEC_FIELDS.items():
        for name in names:
            mine, other = (getattr(getattr(spec, part), name) for spec in (ours, theirs))
            if mine != other:
                yield f"The specs differ in {part}.{name}: {mine}, reference {other}."
    names_differ = [each.name for each in ours.classes] != [each.name for each in theirs.classes]
    if names_differ:
        yield "The specs name the classes differently or in another order."


def _swapped_channels(probe: _Probe) -> str:
    """Try the picture with red and blue swapped."""
    (swapped,) = ask(probe.candidate, [probe.picture], swap_channels=True)
    before, after = (_agreement(each, probe.known) for each in (probe.mine, swapped))
    if not after.is_better_than(before):
        return ""
    order = probe.candidate.spec.input.channel_order
    other = "RGB" if order == "bgr" else "BGR"
    return (
        f"With red and blue swapped the candidate agrees with the reference ({after}, as it is "
        f"{before}): it takes {other} where its spec says {order.upper()}."
    )


@dataclass(frozen=True)
class _Agreement:
    """How well two answers agree: the SNR of the class logits, NaN without; matched share."""

    snr_db: float
    share: float

    def is_better_than(self, other: _Agreement) -> bool:
        if math.isnan(self.snr_db):
            return self.share >= _EXPLAINED_SHARE > other.share
        return is_explained(other.snr_db, self.snr_db)

    def __str__(self) -> str:
        return f"{self.share:.0%} matched" if math.isnan(self.snr_db) else f"{self.snr_db:.0f} dB"


def _agreement(mine: Answer, known: Answer) -> _Agreement:
    share = _matched_share(mine.rows, known.rows)
    if mine.heads is None or known.heads is None:
        return _Agreement(math.nan, share)
    logits = HEAD_OUTPUTS[0]
    return _Agreement(tensor_errors(known.heads[logits], mine.heads[logits]).snr_db, share)


def _matched_share(one: Rows, other: Rows) -> float:
    total = len(one) + len(other)
    return 2 * len(match_rows(one, other, _SAME_IOU).pairs) / total if total else 0.0


def _behind_the_heads(probe: _Probe, comparison: Comparison) -> str:
    """Where raw heads agree, the fault is in what the graph makes of them."""
    detections = comparison.report.detections
    failed = detections is not None and detections.status == "failed"
    heads, spec = probe.mine.heads, probe.candidate.spec
    if not failed or heads is None or not comparison.report.heads_match:
        return ""
    scale = min(
        spec.input.height / probe.picture.shape[0], spec.input.width / probe.picture.shape[1]
    )
    for text, anchors, columns in _box_mistakes(spec.anchors):
        rows = _finished(heads, dataclasses.replace(spec, anchors=anchors), scale, columns)
        if _matched_share(rows, probe.mine.rows) >= _EXPLAINED_SHARE:
            return f"The raw heads agree and the boxes do not: {text}."
    return (
        "The raw heads agree and the detections do not: the fault lies behind the heads, in "
        "anchors, decoding or NMS."
    )


def _box_mistakes(anchors: AnchorSpec) -> Iterator[tuple[str, AnchorSpec, list[int]]]:
    """Yield a clause, anchors, and the order of box coordinates that the mistake would make."""
    plain = [0, 1, 2, 3]
    yield "x and y are swapped in the boxes", anchors, [1, 0, 3, 2]
    ratios = anchors.aspect_ratios
    for order in itertools.permutations(range(len(ratios))):
        if order != tuple(range(len(ratios))):
            moved = tuple(ratios[each] for each in order)
            listed = ", ".join(map(str, order))
            text = f"the anchors are swapped: aspect ratios stand in the order {listed}"
            yield text, dataclasses.replace(anchors, aspect_ratios=moved), plain


def _finished(heads: Tensors, spec: DetectorSpec, scale: float, columns: Sequence[int]) -> Rows:
    """Return detections, in pixels of the picture, that raw heads give under another spec."""
    logits, regression = (heads[name] for name in HEAD_OUTPUTS)
    outputs = finish_heads(logits, regression, spec)
    (rows,) = rows_from_outputs(outputs, spec.output.box_format)
    return dataclasses.replace(rows, boxes=rows.boxes[:, list(columns)] / scale)


def layer_sentence(layers: LayerReport) -> str:
    """Say which layer parts first, and how."""
    first = layers.first
    if first is None:
        return (
            f"All {len(layers.layers)} layers that both sides have agree "
            f"(at least {layers.least_snr_db:.0f} dB)."
        )
    how = f": its output {layers.symptom}" if layers.symptom else ""
    return f"The first layer that differs is {first.name} ({_decibels(first.snr_db)}){how}."


def _decibels(value: float) -> str:
    return f"{value:.1f} dB" if math.isfinite(value) else "not comparable"
