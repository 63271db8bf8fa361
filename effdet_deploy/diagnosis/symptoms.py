"""In what way one tensor is another one gone wrong: scaled, clipped, in another order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.parity.metrics import is_explained, tensor_errors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Channels = NDArray[np.float64]

_MAX_POSITIONS = 4096
_MAPS, _ROWS = 4, 3
"""Ranks of ``[N,C,H,W]`` and ``[N,A,C]``, the forms whose channels are told apart."""


def describe_difference(reference: NDArray[Any], candidate: NDArray[Any]) -> str:
    """Say in a clause what turns ``reference`` into ``candidate``; empty where nothing simple does.

    Args:
        reference: any shape; channels are told apart in ``[N,C,H,W]`` and ``[N,rows,C]``.
        candidate: the same shape.
    """
    if reference.shape != candidate.shape:
        return f"has the shape {list(candidate.shape)} instead of {list(reference.shape)}"
    one, other = (_by_channel(each) for each in (reference, candidate))
    if not np.isfinite(other).all():
        return f"holds {np.count_nonzero(~np.isfinite(other))} values that are NaN or infinite"
    if not np.isfinite(one).all():
        return "is finite where the reference is NaN or infinite"
    before = tensor_errors(one, other).snr_db
    for explain in (_scaled, _clipped, _reordered, _affine):
        text, predicted = explain(one, other)
        if text and is_explained(before, tensor_errors(predicted, other).snr_db):
            return text
    return ""


def _by_channel(tensor: NDArray[Any]) -> Channels:
    """Return ``[C, positions]`` of maps and of rows, ``[1, elements]`` of anything else."""
    wide = np.asarray(tensor, dtype=np.float64)
    if wide.ndim == _MAPS:
        return np.moveaxis(wide, 1, 0).reshape(wide.shape[1], -1)
    if wide.ndim == _ROWS:
        return np.moveaxis(wide, 2, 0).reshape(wide.shape[2], -1)
    return wide.reshape(1, -1)


def _scaled(reference: Channels, candidate: Channels) -> tuple[str, Channels]:
    energy = float((reference * reference).sum())
    factor = float((reference * candidate).sum()) / energy if energy else 0.0
    return f"is the reference's times {factor:.4g}", reference * factor


def _clipped(reference: Channels, candidate: Channels) -> tuple[str, Channels]:
    low, high = float(candidate.min()), float(candidate.max())
    bounds = [f"{low:.4g} from below"] if reference.min() < low else []
    bounds += [f"{high:.4g} from above"] if reference.max() > high else []
    text = f"is the reference's clipped at {' and '.join(bounds)}" if bounds else ""
    return text, np.clip(reference, low, high)


def _reordered(reference: Channels, candidate: Channels) -> tuple[str, Channels]:
    """Each channel of the candidate is another of the reference."""
    step = max(1, reference.shape[1] // _MAX_POSITIONS)
    one, other = reference[:, ::step], candidate[:, ::step]
    distances = (
        (other * other).sum(axis=1)[:, None] + (one * one).sum(axis=1)[None, :] - 2 * other @ one.T
    )
    order = distances.argmin(axis=1)
    moved = np.flatnonzero(order != np.arange(len(order)))
    if not len(moved) or len(np.unique(order)) != len(order):
        return "", reference
    listed = ", ".join(f"{order[each]} at {each}" for each in moved[:3].tolist())
    more = ", …" if len(moved) > 3 else ""
    text = f"has {len(moved)} of {len(order)} channels in another order ({listed}{more})"
    return text, reference[order]


def _affine(reference: Channels, candidate: Channels) -> tuple[str, Channels]:
    """Each channel is scaled and shifted by numbers of its own."""
    if len(reference) == 1:
        return "", reference
    centre, centre_other = (each.mean(axis=1, keepdims=True) for each in (reference, candidate))
    spread = ((reference - centre) ** 2).sum(axis=1, keepdims=True)
    shared = ((reference - centre) * (candidate - centre_other)).sum(axis=1, keepdims=True)
    factor = np.divide(shared, spread, out=np.ones_like(shared), where=spread > 0)
    predicted = centre_other + (reference - centre) * factor
    errors = ((candidate - reference) ** 2).sum(axis=1)
    wrong = np.flatnonzero(errors > errors.sum() * 1e-6)
    listed = ", ".join(map(str, wrong[:3].tolist())) + (", …" if len(wrong) > 3 else "")
    text = (
        f"has {len(wrong)} of {len(reference)} channels scaled and shifted, each by its own "
        f"amount ({listed}), as by another BatchNorm or bias"
    )
    return text, predicted
