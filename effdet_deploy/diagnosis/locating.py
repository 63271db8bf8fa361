"""Where two networks begin to differ: the errors of layers, the first wrong layer, the worst."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from effdet_deploy.diagnosis.symptoms import describe_difference
from effdet_deploy.parity.metrics import TensorErrors, tensor_errors
from effdet_deploy.parity.tolerances import TOLERANCES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from effdet_deploy.artifact.spec import Precision
    from effdet_deploy.onnxgraph.layers import GraphLayer

    Readings = Iterator[dict[str, NDArray[Any]]]

WORST = 10
MAX_BYTES = 256 * 1024**2
"""The most bytes of one image's layers that are read from a network at once; more need more
runs."""
LEAST_FP32_SNR_DB = 60.0
"""FP32 layers with a smaller signal-to-noise ratio, in decibels, count as different: an error of a
thousandth of the signal is far above what rounding adds up to."""


class LayerSource(Protocol):
    """A network that can return the outputs of layers, by the node names of our ONNX files."""

    @property
    def names(self) -> set[str]:
        """The names of the layers that it can return."""
        ...

    def read(self, names: Sequence[str], pictures: Sequence[NDArray[np.uint8]]) -> Readings:
        """Yield the outputs of the named layers by name, for every letterboxed picture."""
        ...


@dataclass(frozen=True)
class LayerParity:
    """One layer's output compared with the reference's, over all images together.

    Attributes:
        name: the node's name: module path and role.
        module: the module path.
        errors: the errors of its output.
    """

    name: str
    module: str
    errors: TensorErrors

    @property
    def snr_db(self) -> float:
        """Signal-to-noise ratio in decibels; -inf if nothing could be compared."""
        return self.errors.snr_db


@dataclass(frozen=True)
class LayerReport:
    """The layers of two networks, in the order in which they are computed.

    Attributes:
        layers: all layers that both networks have.
        least_snr_db: the ratio from which a layer counts as the same, in decibels.
        first: the first layer below ``least_snr_db``.
        symptom: how its output differs, as a clause; empty if there is no simple description.
        unmatched: modules of the candidate that the reference lacks, so that they were not
            compared.
    """

    layers: tuple[LayerParity, ...]
    least_snr_db: float
    first: LayerParity | None = None
    symptom: str = ""
    unmatched: int = 0

    @property
    def worst(self) -> tuple[LayerParity, ...]:
        """The ten layers with the smallest signal-to-noise ratio, worst first."""
        return tuple(sorted(self.layers, key=lambda each: each.snr_db)[:WORST])

    @property
    def sentence(self) -> str:
        """A sentence that says which layer differs first, and how."""
        if self.first is None:
            return (
                f"All {len(self.layers)} layers that both sides have agree "
                f"(at least {self.least_snr_db:.0f} dB)."
            )
        level = self.first.snr_db
        said = f"{level:.1f} dB" if math.isfinite(level) else "not comparable"
        how = f": its output {self.symptom}" if self.symptom else ""
        return f"The first layer that differs is {self.first.name} ({said}){how}."

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a document, which may hold NaN and infinity."""
        return {
            "least_snr_db": self.least_snr_db,
            "first": self.first.name if self.first else None,
            "symptom": self.symptom,
            "worst": [each.name for each in self.worst],
            "unmatched": self.unmatched,
            "layers": [
                {
                    "name": each.name,
                    "module": each.module,
                    "largest_error": each.errors.largest,
                    "cosine": each.errors.cosine,
                    "snr_db": each.snr_db,
                    "non_finite": each.errors.non_finite_candidate,
                    "mismatch": each.errors.mismatch,
                }
                for each in self.layers
            ],
        }


def least_snr(precision: Precision) -> float:
    """Return the signal-to-noise ratio in decibels below which layers count as different."""
    return TOLERANCES[precision].least_snr_db or LEAST_FP32_SNR_DB


def locate(
    layers: Sequence[GraphLayer],
    candidate: LayerSource,
    reference: LayerSource,
    pictures: Sequence[NDArray[np.uint8]],
    least_snr_db: float,
) -> LayerReport:
    """Compare every layer that both networks have and find the first that is too far off.

    Layers behind the raw heads work on lists sorted by score, and two networks that differ sort
    them differently: these layers are compared only if everything before them agrees.

    Args:
        layers: the candidate's layers, in the order in which they are computed.
        candidate: the network to judge.
        reference: the network to compare with.
        pictures: RGB, letterboxed to the input of both, uint8 ``[H,W,3]``.
        least_snr_db: the ratio from which a layer counts as the same, in decibels.
    """
    shared = [each for each in layers if each.name in candidate.names & reference.names]
    network = [each for each in shared if not each.is_postprocess]
    behind = [each for each in shared if each.is_postprocess]
    found: list[LayerParity] = []
    first = None
    for part in (network, behind):
        if first is None:
            found += _measured(part, candidate, reference, pictures)
            first = next((each for each in found if each.snr_db < least_snr_db), None)
    symptom = ""
    if first is not None:
        known, mine = (
            [each[first.name] for each in side.read([first.name], pictures)]
            for side in (reference, candidate)
        )
        same = all(one.shape == other.shape for one, other in zip(known, mine, strict=True))
        symptom = describe_difference(
            *((np.concatenate(known), np.concatenate(mine)) if same else (known[0], mine[0]))
        )
    modules = {each.module for each in layers if each.computes and not each.is_postprocess}
    unmatched = len(modules - {each.module for each in network})
    return LayerReport(tuple(found), least_snr_db, first, symptom, unmatched)


def _measured(
    layers: Sequence[GraphLayer],
    candidate: LayerSource,
    reference: LayerSource,
    pictures: Sequence[NDArray[np.uint8]],
) -> list[LayerParity]:
    """Compare layers in runs whose outputs fit into memory together."""
    sizes = np.cumsum([each.bytes for each in layers])
    found = []
    start = 0
    while start < len(layers):
        before = sizes[start] - layers[start].bytes
        # A run has at least one layer, however large it is.
        end = max(start + 1, int(np.searchsorted(sizes, before + MAX_BYTES, side="right")))
        group, start = layers[start:end], end
        names = [each.name for each in group]
        pooled = dict.fromkeys(names, TensorErrors())
        readings = (side.read(names, pictures) for side in (reference, candidate))
        for known, mine in zip(*readings, strict=True):
            for each in group:
                pair = known[each.name], mine[each.name]
                pooled[each.name] += tensor_errors(
                    *(_unmasked(*pair) if each.is_postprocess else pair)
                )
        found += [LayerParity(each.name, each.module, pooled[each.name]) for each in group]
    return found


def _unmasked(known: NDArray[Any], mine: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Set both to 0 where both hold the same infinity, with which a graph may mask boxes."""
    if known.shape != mine.shape:
        return known, mine
    masked = np.isinf(known) & (known == mine)
    return np.where(masked, 0, known), np.where(masked, 0, mine)
