"""Descriptions of differences, and their causes as far as they can be found by trials.

A tensor that differs is described as the reference's tensor after a simple change: it was scaled,
clipped or reordered. The cause of a candidate's difference is found in its spec, and by running it
with typical mistakes corrected.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.artifact.spec import HEAD_OUTPUTS, enough_candidates
from effdet_deploy.parity.matching import match_rows
from effdet_deploy.parity.metrics import is_explained, tensor_errors
from effdet_deploy.parity.side import answers, ask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from effdet_deploy.parity.comparison import Comparison
    from effdet_deploy.parity.rows import Rows
    from effdet_deploy.parity.side import Answer, Side

    Channels = NDArray[np.float64]

_MAX_POSITIONS = 4096
"""At about how many positions a channel is compared with other channels."""
_SHOWN_ITEMS = 3
_CHANNEL_AXES = {4: 1, 3: 2}
"""The channel axis by rank: channels are recognized in ``[N,C,H,W]`` and ``[N,A,C]``."""
_SPEC_FIELDS = {
    "input": ("height", "width", "mean", "std", "fill", "resize", "interpolation"),
    "anchors": ("min_level", "max_level", "octave_scales", "aspect_ratios", "scale"),
    "output": (
        *("score_threshold", "iou_threshold", "class_agnostic"),
        *("candidates", "max_detections"),
    ),
}
"""The fields of two specs that must be equal for the same detections to come out."""
_SAME_IOU = 0.99
"""Two boxes with at least this IoU count as the same."""
_EXPLAINED_SHARE = 0.95
"""The share of detections that must be the same for an explanation to count."""


def describe_difference(reference: NDArray[Any], candidate: NDArray[Any]) -> str:
    """Return a clause on the simple change that turns ``reference`` into ``candidate``, or "".

    Args:
        reference: any shape; channels are recognized in ``[N,C,H,W]`` and ``[N,rows,C]``.
        candidate: a tensor of the same shape.
    """
    if reference.shape != candidate.shape:
        return f"has the shape {list(candidate.shape)} instead of {list(reference.shape)}"
    one, other = (np.asarray(each, dtype=np.float64) for each in (reference, candidate))
    # Channels come first: [C, positions], or [1, elements] if there are no channels.
    if (axis := _CHANNEL_AXES.get(one.ndim)) is not None:
        count = one.shape[axis]
        one, other = (np.moveaxis(each, axis, 0).reshape(count, -1) for each in (one, other))
    else:
        one, other = one.reshape(1, -1), other.reshape(1, -1)
    if not np.isfinite(other).all():
        return f"holds {np.count_nonzero(~np.isfinite(other))} values that are NaN or infinite"
    if not np.isfinite(one).all():
        return "is finite where the reference is NaN or infinite"
    before = tensor_errors(one, other).snr_db
    for text, predicted in _explanations(one, other):
        if is_explained(before, tensor_errors(predicted, other).snr_db):
            return text
    return ""


def _explanations(reference: Channels, candidate: Channels) -> Iterator[tuple[str, Channels]]:
    """Yield possible changes of the reference: a clause about each, and the tensor that results."""
    energy = float((reference * reference).sum())
    factor = float((reference * candidate).sum()) / energy if energy else 0.0
    yield f"is the reference's times {factor:.4g}", reference * factor

    low, high = float(candidate.min()), float(candidate.max())
    bounds = [f"{low:.4g} from below"] if reference.min() < low else []
    bounds += [f"{high:.4g} from above"] if reference.max() > high else []
    if bounds:
        text = f"is the reference's clipped at {' and '.join(bounds)}"
        yield text, np.clip(reference, low, high)

    # For every channel of the candidate, the most similar channel of the reference is found.
    step = max(1, reference.shape[1] // _MAX_POSITIONS)
    one, other = reference[:, ::step], candidate[:, ::step]
    squares = [(each * each).sum(axis=1) for each in (one, other)]
    order = (squares[1][:, None] + squares[0][None, :] - 2 * other @ one.T).argmin(axis=1)
    moved = np.flatnonzero(order != np.arange(len(order)))
    if len(moved) and len(np.unique(order)) == len(order):
        listed = _listed([f"{each} holds the reference's {order[each]}" for each in moved])
        text = f"has {len(moved)} of {len(order)} channels in another order ({listed})"
        yield text, reference[order]

    # Every channel is scaled and shifted by its own numbers, fitted by least squares.
    if len(reference) > 1:
        center, center_other = (each.mean(axis=1, keepdims=True) for each in (reference, candidate))
        spread = ((reference - center) ** 2).sum(axis=1, keepdims=True)
        shared = ((reference - center) * (candidate - center_other)).sum(axis=1, keepdims=True)
        factors = np.divide(shared, spread, out=np.ones_like(shared), where=spread > 0)
        errors = ((candidate - reference) ** 2).sum(axis=1)
        wrong = np.flatnonzero(errors > errors.sum() * 1e-6)
        text = (
            f"has {len(wrong)} of {len(reference)} channels scaled and shifted by their own "
            f"amounts ({_listed(wrong.tolist())}), as by another BatchNorm or bias"
        )
        yield text, center_other + (reference - center) * factors


def _listed(items: Sequence[object]) -> str:
    return ", ".join(map(str, items[:_SHOWN_ITEMS])) + (", …" if len(items) > _SHOWN_ITEMS else "")


def find_causes(
    comparison: Comparison,
    candidate: Side,
    reference: Side,
    picture: NDArray[np.uint8],
) -> tuple[str, ...]:
    """Say in sentences why a candidate differs, as far as that can be found out.

    Args:
        comparison: the comparison of ``candidate`` with ``reference``.
        candidate: the artifact to examine.
        reference: the model to compare with.
        picture: RGB uint8 ``[h,w,3]`` on which explanations are tried.
    """
    report, specs = comparison.report, (comparison.candidate, comparison.reference)
    found = []
    for part, names in _SPEC_FIELDS.items():
        for name in names:
            mine_says, known_says = (getattr(getattr(spec, part), name) for spec in specs)
            # If more boxes enter the NMS of the reference, the comparison has measured what that
            # changes.
            is_measured = name == "candidates" and report.reach is not None
            if mine_says != known_says and not is_measured:
                found.append(
                    f"The specs differ in {part}.{name}: {mine_says} in the candidate, "
                    f"{known_says} in the reference."
                )
    if (reach := report.reach) is not None and not reach.fits:
        found.append(
            f"{reach.allowed} boxes enter the candidate's NMS, but it takes {reach.needed} to find "
            f"what the reference finds with {reach.known}: export the candidate with --candidates "
            f"{enough_candidates(reach.needed)}."
        )
    if len({tuple(each.name for each in spec.classes) for spec in specs}) > 1:
        found.append("The specs name the classes differently or in another order.")
    if report.passed:
        return tuple(found)
    (mine,), (known,) = (ask(side, [picture]) for side in (candidate, reference))
    if comparison.candidate.input.channels >= 3:
        (swapped,) = ask(candidate, [picture], swap_channels=True)
        found.append(_swapped_channels(mine, swapped, known))
    if report.detections and report.detections.status == "failed" and report.heads_match:
        found.append(_behind_the_heads(mine))
    return tuple(filter(None, found))


def _swapped_channels(mine: Answer, swapped: Answer, known: Answer) -> str:
    """Return a sentence if swapping red and blue makes the candidate agree; else an empty text."""
    if mine.heads is not None and swapped.heads is not None and known.heads is not None:
        logits = known.heads[HEAD_OUTPUTS[0]]
        before, after = (
            tensor_errors(logits, heads[HEAD_OUTPUTS[0]]).snr_db
            for heads in (mine.heads, swapped.heads)
        )
        explains = is_explained(before, after)
        said = f"{after:.0f} dB instead of {before:.0f} dB"
    else:
        before, after = (_matched_share(each.rows, known.rows) for each in (mine, swapped))
        explains = after >= _EXPLAINED_SHARE > before
        said = f"{after:.0%} matched instead of {before:.0%}"
    if not explains:
        return ""
    order = mine.spec.input.channel_order
    other = "RGB" if order == "bgr" else "BGR"
    return (
        f"With red and blue swapped the candidate agrees with the reference ({said}): it takes "
        f"{other}, but its spec says {order.upper()}."
    )


def _matched_share(one: Rows, other: Rows) -> float:
    total = len(one) + len(other)
    return 2 * len(match_rows(one, other, _SAME_IOU).pairs) / total if total else 0.0


def _behind_the_heads(mine: Answer) -> str:
    """Name a mistake behind the heads, if heads agree and detections do not."""
    if mine.heads is None:
        return ""
    anchors = mine.spec.anchors
    ratios = anchors.aspect_ratios
    # For every mistake, a clause about it, and the anchors and the order of box coordinates that it
    # would lead to.
    mistakes = [("x and y are swapped in the boxes", anchors, [1, 0, 3, 2])]
    for order in list(itertools.permutations(range(len(ratios))))[1:]:
        moved = dataclasses.replace(anchors, aspect_ratios=tuple(ratios[each] for each in order))
        listed = ", ".join(map(str, order))
        text = f"the anchors are swapped: the aspect ratios have the order {listed}"
        mistakes.append((text, moved, [0, 1, 2, 3]))
    for text, moved, columns in mistakes:
        spec = dataclasses.replace(mine.spec, anchors=moved)
        (mistaken,) = answers(spec, [mine.placed], mine.heads, None)
        rows = dataclasses.replace(mistaken.rows, boxes=mistaken.rows.boxes[:, columns])
        if _matched_share(rows, mine.rows) >= _EXPLAINED_SHARE:
            return f"The raw heads agree but the boxes do not: {text}."
    return (
        "The raw heads agree but the detections do not: the fault lies behind the heads, in "
        "anchors, decoding or NMS."
    )
