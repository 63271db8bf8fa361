"""Errors of one tensor against another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_UP, Context
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK = 1 << 20
"""How many elements are widened to float64 at once: the heads of D7x are 160 MB per image."""
_DIGITS = 2


@dataclass(frozen=True)
class TensorErrors:
    """Errors of a candidate against a reference; two instances can be added.

    Sums cover the elements that are finite in both tensors; ``non_finite_reference`` and
    ``non_finite_candidate`` count the elements that are not finite. An energy is a sum of squares.
    ``mismatch`` is a clause that says why the tensors could not be compared, or empty.
    """

    count: int = 0
    largest: float = 0.0
    total: float = 0.0
    error_energy: float = 0.0
    reference_energy: float = 0.0
    candidate_energy: float = 0.0
    product: float = 0.0
    non_finite_reference: int = 0
    non_finite_candidate: int = 0
    mismatch: str = ""

    def __add__(self, other: Self) -> Self:
        added = {
            name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__
        }
        largest, mismatch = max(self.largest, other.largest), self.mismatch or other.mismatch
        return type(self)(**added | {"largest": largest, "mismatch": mismatch})

    @property
    def is_comparable(self) -> bool:
        """Whether elements were compared and all of them were finite in both tensors."""
        broken = self.non_finite_reference + self.non_finite_candidate
        return self.count > 0 and not broken and not self.mismatch

    @property
    def mean(self) -> float:
        """Mean absolute error; NaN if no element was compared."""
        return self.total / self.count if self.count else math.nan

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two tensors as vectors; 1 for two zero vectors.

        It is NaN if the tensors cannot be compared.
        """
        if not self.is_comparable:
            return math.nan
        if self.error_energy == 0:
            return 1.0
        norm = math.sqrt(self.reference_energy) * math.sqrt(self.candidate_energy)
        return self.product / norm if norm else 0.0

    @property
    def snr_db(self) -> float:
        """Signal-to-noise ratio in decibels: energy of the reference over energy of the error.

        It is inf without an error, and -inf if the tensors cannot be compared.
        """
        if not self.is_comparable:
            return -math.inf
        if self.error_energy == 0:
            return math.inf
        if self.reference_energy == 0:
            return -math.inf
        return 10 * math.log10(self.reference_energy / self.error_energy)

    @property
    def passing_tolerance(self) -> float:
        """The smallest absolute tolerance, with two digits, that passes; inf if none passes."""
        if not self.is_comparable:
            return math.inf
        return float(Context(_DIGITS, ROUND_UP).create_decimal(repr(self.largest)))

    def within(self, tolerance: float) -> bool:
        """Whether all elements are finite in both tensors, and all errors within ``tolerance``."""
        return self.is_comparable and self.largest <= tolerance


GAIN_DB = 20.0
"""A cause counts as the explanation of an error if the error has at most a hundredth of its energy
without this cause."""


def is_explained(before_db: float, after_db: float) -> bool:
    """Return whether a cause explains an error, from the ratios in dB with it and without it."""
    return after_db > before_db and after_db >= before_db + GAIN_DB


def tensor_errors(reference: NDArray[Any], candidate: NDArray[Any]) -> TensorErrors:
    """Compare two tensors of any float or integer dtype, element by element, in float64.

    Tensors of different shapes are reported as a mismatch. NaN never equals NaN here, and
    infinities in both tensors do not count as equal.
    """
    if reference.shape != candidate.shape:
        shapes = f"{list(reference.shape)} in reference, {list(candidate.shape)} in candidate"
        return TensorErrors(mismatch=f"the shapes differ: {shapes}")
    errors = TensorErrors()
    for start in range(0, reference.size, _CHUNK):
        one, other = (
            each.reshape(-1)[start : start + _CHUNK].astype(np.float64)
            for each in (reference, candidate)
        )
        one_ok, other_ok = np.isfinite(one), np.isfinite(other)
        if not (finite := one_ok & other_ok).all():
            one, other = one[finite], other[finite]
        difference = np.abs(other - one)
        errors += TensorErrors(
            count=difference.size,
            largest=float(difference.max(initial=0.0)),
            total=float(difference.sum()),
            error_energy=float(difference @ difference),
            reference_energy=float(one @ one),
            candidate_energy=float(other @ other),
            product=float(one @ other),
            non_finite_reference=int(np.count_nonzero(~one_ok)),
            non_finite_candidate=int(np.count_nonzero(~other_ok)),
        )
    return errors
