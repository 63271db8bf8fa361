"""What a failed comparison means: the faults that can be told by trying them out."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

from effdet_deploy.artifact.spec import HEAD_OUTPUTS
from effdet_deploy.parity.matching import match_rows
from effdet_deploy.parity.metrics import is_explained, tensor_errors
from effdet_deploy.parity.side import answers, ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import AnchorSpec, DetectorSpec
    from effdet_deploy.diagnosis.locating import LayerReport
    from effdet_deploy.parity.comparison import Comparison
    from effdet_deploy.parity.rows import Rows
    from effdet_deploy.parity.side import Answer, Side

_SPEC_FIELDS = {
    "input": ("height", "width", "mean", "std", "fill"),
    "anchors": ("min_level", "max_level", "octave_scales", "aspect_ratios", "scale"),
    "output": ("score_threshold", "iou_threshold", "candidates", "max_detections"),
}
"""What both specs must say alike for the same detections to come out."""
_SAME_IOU = 0.99
_EXPLAINED_SHARE = 0.95
"""Of detections that must be the same for an explanation to hold."""
_XYXY, _YXYX = [0, 1, 2, 3], [1, 0, 3, 2]


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
    report = comparison.report
    found = list(_spec_differences(comparison.candidate, comparison.reference))
    if report.passed:
        return tuple(found)
    (mine,), (known,) = (ask(side, [picture]) for side in (candidate, reference))
    (swapped,) = ask(candidate, [picture], swap_channels=True)
    found.append(_swapped_channels(mine, swapped, known))
    if report.detections and report.detections.status == "failed" and report.heads_match:
        found.append(_behind_the_heads(mine))
    if layers is not None:
        found.append(layers.sentence)
    return tuple(filter(None, found))


def _spec_differences(ours: DetectorSpec, theirs: DetectorSpec) -> Iterator[str]:
    for part, names in _SPEC_FIELDS.items():
        for name in names:
            mine, other = (getattr(getattr(spec, part), name) for spec in (ours, theirs))
            if mine != other:
                yield f"The specs differ in {part}.{name}: {mine}, reference {other}."
    if [each.name for each in ours.classes] != [each.name for each in theirs.classes]:
        yield "The specs name the classes differently or in another order."


def _swapped_channels(mine: Answer, swapped: Answer, known: Answer) -> str:
    """Say whether the candidate agrees once red and blue are swapped; by heads where they are."""
    if mine.heads is not None and swapped.heads is not None and known.heads is not None:
        logits = known.heads[HEAD_OUTPUTS[0]]
        before, after = (
            tensor_errors(logits, heads[HEAD_OUTPUTS[0]]).snr_db
            for heads in (mine.heads, swapped.heads)
        )
        explains = is_explained(before, after)
        said = f"{after:.0f} dB, as it is {before:.0f} dB"
    else:
        before, after = (_matched_share(each.rows, known.rows) for each in (mine, swapped))
        explains = after >= _EXPLAINED_SHARE > before
        said = f"{after:.0%} matched, as it is {before:.0%} matched"
    if not explains:
        return ""
    order = mine.spec.input.channel_order
    other = "RGB" if order == "bgr" else "BGR"
    return (
        f"With red and blue swapped the candidate agrees with the reference ({said}): it takes "
        f"{other} where its spec says {order.upper()}."
    )


def _matched_share(one: Rows, other: Rows) -> float:
    total = len(one) + len(other)
    return 2 * len(match_rows(one, other, _SAME_IOU).pairs) / total if total else 0.0


def _behind_the_heads(mine: Answer) -> str:
    """Say what the graph makes of heads that agree, for detections that do not."""
    if mine.heads is None:
        return ""
    for text, anchors, columns in _box_mistakes(mine.spec.anchors):
        spec = dataclasses.replace(mine.spec, anchors=anchors)
        (mistaken,) = answers(spec, [mine.placed], mine.heads, None)
        rows = dataclasses.replace(mistaken.rows, boxes=mistaken.rows.boxes[:, columns])
        if _matched_share(rows, mine.rows) >= _EXPLAINED_SHARE:
            return f"The raw heads agree and the boxes do not: {text}."
    return (
        "The raw heads agree and the detections do not: the fault lies behind the heads, in "
        "anchors, decoding or NMS."
    )


def _box_mistakes(anchors: AnchorSpec) -> Iterator[tuple[str, AnchorSpec, list[int]]]:
    """Yield a clause, anchors, and the order of box coordinates that the mistake would make."""
    yield "x and y are swapped in the boxes", anchors, _YXYX
    ratios = anchors.aspect_ratios
    _right, *others = itertools.permutations(range(len(ratios)))
    for order in others:
        moved = tuple(ratios[each] for each in order)
        listed = ", ".join(map(str, order))
        text = f"the anchors are swapped: aspect ratios stand in the order {listed}"
        yield text, dataclasses.replace(anchors, aspect_ratios=moved), _XYXY
