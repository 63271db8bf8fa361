"""Calibration: which values tensors take on real pictures, and which range INT8 should cover.

Values are counted in streaming histograms; the best range has the least error from rounding and
clipping together. Min-max, percentile and entropy (Migacz 2017) were measured too; see
docs/precision.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from effdet_deploy.errors import DataError, EffdetDeployError
from effdet_deploy.evaluation.sets import read_pictures
from effdet_deploy.files import BROKEN_ARCHIVE, deliver, staging
from effdet_deploy.onnxgraph.running import Range, run_graph, scan_ranges
from effdet_deploy.progress import silent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto

    from effdet_deploy.artifact.spec import InputSpec
    from effdet_deploy.detection.pictures import Pictures
    from effdet_deploy.progress import Progress

MIN_IMAGES = 8
"""Fewer pictures do not show the ranges reliably."""
MAX_IMAGES = 64
"""If there are more pictures, this many are used, evenly spread over the sorted names."""
BINS = 2048
"""How many bins a histogram has."""
LEVELS = 255
"""How many steps of a quantizer cover a range."""
_SHARES = np.linspace(1.0, 0.2, 41)
"""The shares of a tensor's full range that are tried as the range to cover."""
_ELEMENTS_HELD = 1 << 26
"""The most float32 values of a run that are held at once: a quarter of a gigabyte."""


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often a tensor took which values: int64 ``counts`` in equal bins from low to high."""

    low: float
    high: float
    counts: NDArray[np.int64]

    @property
    def centers(self) -> NDArray[np.float64]:
        """The middle of every bin."""
        width = (self.high - self.low) / len(self.counts)
        middles = self.low + width * (np.arange(len(self.counts)) + 0.5)
        return np.asarray(middles, dtype=np.float64)


def calibration_images(source: Path, spec: InputSpec) -> list[NDArray[np.uint8]]:
    """Read and letterbox the calibration pictures; raises as :func:`calibration_pictures`."""
    return calibration_pictures(source).letterboxed(spec)


def calibration_pictures(source: Path) -> Pictures:
    """Find the calibration pictures in a folder or in COCO annotations.

    Raises:
        DataError: there are fewer than :data:`MIN_IMAGES` pictures, or the annotations are
            unusable.
        ImageError: the folder does not exist or holds no pictures.
    """
    found = read_pictures(source)
    if len(found) < MIN_IMAGES:
        raise DataError(
            f"Calibration needs at least {MIN_IMAGES} pictures, but '{source}' holds {len(found)}.",
            "Add pictures like those that the detector will see.",
        )
    return found.spread(MAX_IMAGES)


def collect(
    model: ModelProto,
    values: Sequence[str],
    batches: Sequence[NDArray[Any]],
    progress: Progress = silent,
) -> dict[str, Histogram]:
    """Return the histograms of ``values`` over the graph inputs ``batches``.

    The first pass finds the ranges, the second one counts; activations are not kept.
    """
    progress(f"calibrating on {len(batches)} pictures: ranges")
    ranges = scan_ranges(model, values, batches)
    for value, seen in ranges.items():
        if not math.isfinite(seen.high - seen.low):
            raise DataError(
                f"The tensor '{value}' has NaN or infinite values on the calibration pictures.",
                "Check the weights: a model that overflows in FP32 cannot be quantized to INT8.",
            )
    counts = {value: np.zeros(BINS, dtype=np.int64) for value in values}
    for done, arrays in enumerate(activations(model, values, batches), start=1):
        progress(f"calibrating on {len(batches)} pictures: histograms, step {done}")
        for value, array in arrays.items():
            seen = ranges[value]
            counts[value] += np.histogram(array, BINS, (seen.low, seen.high))[0]
    return {
        value: Histogram(ranges[value].low, ranges[value].high, counts[value]) for value in values
    }


def activations(
    model: ModelProto, values: Sequence[str], batches: Sequence[NDArray[Any]]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Run ``model`` and yield ``values`` batch by batch.

    If memory cannot hold all tensors of a run, the model runs over all batches again for the
    tensors that are left.
    """
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    elements = {
        # Unknown dimensions count as one.
        value.name: math.prod(max(1, side.dim_value) for side in value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.output)
    }
    portions: list[list[str]] = []
    held = 0
    for value in values:
        size = elements.get(value, 1)
        if not portions or held + size > _ELEMENTS_HELD:
            portions.append([])
            held = 0
        portions[-1].append(value)
        held += size
    for names in portions:
        for arrays in run_graph(model, names, batches):
            yield dict(zip(names, arrays, strict=True))


def cached(
    directory: Path,
    model: ModelProto,
    values: Sequence[str],
    batches: Sequence[NDArray[Any]],
    progress: Progress = silent,
) -> dict[str, Histogram]:
    """Return the histograms of :func:`collect` from ``directory``, or compute and store them there.

    The file is named after a hash of graph, pictures and settings. A damaged file is replaced.
    """
    path = directory / f"{calibration_key(model, values, batches)}.npz"
    # If the file is missing or useless, the histograms are counted again.
    with contextlib.suppress(*BROKEN_ARCHIVE):
        with np.load(path, allow_pickle=False) as file:
            limits, counts = file["limits"], file["counts"]
        if limits.shape == (len(values), 2) and counts.shape == (len(values), BINS):
            return {
                value: Histogram(float(low), float(high), row)
                for value, (low, high), row in zip(values, limits, counts, strict=True)
            }
    found = collect(model, values, batches, progress)
    # The histograms are still valid if they cannot be stored.
    with contextlib.suppress(OSError, EffdetDeployError):
        directory.mkdir(parents=True, exist_ok=True)
        with staging(path) as folder:
            staged = folder / path.name
            np.savez_compressed(
                staged,
                limits=np.array([(each.low, each.high) for each in found.values()]),
                counts=np.stack([each.counts for each in found.values()]),
            )
            deliver(staged, path)
    return found


def calibration_key(
    model: ModelProto, values: Iterable[str], batches: Iterable[NDArray[Any]]
) -> str:
    """Return a SHA-256 of everything that histograms depend on."""
    digest = hashlib.sha256(f"{BINS} {' '.join(values)}".encode())
    digest.update(model.graph.SerializeToString(deterministic=True))
    for batch in batches:
        digest.update(str(batch.shape).encode())
        digest.update(np.ascontiguousarray(batch).tobytes())
    return digest.hexdigest()


def choose_range(histogram: Histogram, *, symmetric: bool) -> Range:
    """Return the range that INT8 should cover: the one with least mean squared error.

    Args:
        histogram: the histogram of the tensor; the range always includes zero.
        symmetric: whether the range must be as wide below zero as above.
    """
    bottom, top = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if not bottom < top:
        return Range(-1.0 if symmetric else 0.0, 1.0)
    values = histogram.centers

    def error(low: float, high: float) -> float:
        scale = (high - low) / LEVELS or 1.0
        inside = np.clip(values, low, high)
        # A value is anywhere inside its step: this is the variance of a uniform distribution.
        rounding = np.where(values == inside, scale**2 / 12, 0.0)
        return float((histogram.counts * ((values - inside) ** 2 + rounding)).sum())

    if symmetric:
        largest = max(-bottom, top)
        best = float(min(_SHARES, key=lambda share: error(-share * largest, share * largest)))
        return Range(-best * largest, best * largest)
    # The two ends are nearly independent, so they are searched one after the other.
    upper = min(_SHARES, key=lambda share: error(bottom, share * top)) * top
    lower = min(_SHARES, key=lambda share: error(share * bottom, upper)) * bottom
    return Range(float(lower), float(upper))
