"""From an FP32 graph to an INT8 graph: choice of convolutions, ranges and rounding."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
from onnx import numpy_helper

from effdet_deploy.onnxgraph.index import initializers
from effdet_deploy.precision.int8.calibration import (
    activations,
    cached,
    calibration_key,
    choose_range,
)
from effdet_deploy.precision.int8.convolutions import as_kernel, find_convolutions
from effdet_deploy.precision.int8.correction import channel_means, correct_biases
from effdet_deploy.precision.int8.layout import (
    LAYOUTS,
    insert_quantizers,
    quantized_values,
    rounding_step,
)
from effdet_deploy.precision.int8.rounding import (
    LARGEST_INT8,
    LARGEST_PORTABLE,
    input_snr_db,
    quantize_weight,
    second_moments,
)
from effdet_deploy.progress import silent

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

    from effdet_deploy.artifact.spec import Int8Range, Target
    from effdet_deploy.onnxgraph.running import Range
    from effdet_deploy.precision.int8.calibration import Histogram
    from effdet_deploy.precision.int8.convolutions import Convolution
    from effdet_deploy.precision.int8.layout import Layout
    from effdet_deploy.precision.int8.rounding import QuantizedWeight
    from effdet_deploy.progress import Progress

_MOMENT_IMAGES = 16
"""How many calibration pictures give the second moments and the channel means."""
_LEAST_INPUT_SNR_DB = 20.0
"""The signal-to-noise ratio in dB that a matrix product must keep when its input is rounded, or it
does not become INT8 by default.

A trained D0 is well above this limit. A D0 whose channels were scaled up to a thousand times apart,
which does not change its detections, is far below: see tests/precision/test_hostile_d0.py.
"""


@dataclass(frozen=True)
class Recipe:
    """How INT8 weights and biases are made.

    Attributes:
        compensate: round weights so that later weights cancel the errors of earlier ones.
        correct_bias: shift biases so that channel means do not change.
        int8_range: how large weights may be if the target adds their products in pairs: ``full``
            allows all of int8, ``portable`` only what no processor saturates.
    """

    compensate: bool = True
    correct_bias: bool = True
    int8_range: Int8Range = "portable"


class Quantizer:
    """An FP32 graph and its calibration, from which graphs with any choice of INT8 layers are made.

    Args:
        model: the FP32 graph, which is not changed.
        batches: graph inputs of the calibration pictures.
        target: the runtime that the graph is laid out for.
        recipe: how INT8 is made.
        cache: the folder in which histograms are stored.
        progress: called when a stage begins.
    """

    def __init__(
        self,
        model: ModelProto,
        batches: Sequence[NDArray[Any]],
        target: Target,
        recipe: Recipe,
        cache: Path,
        progress: Progress = silent,
    ) -> None:
        self.model = model
        self.convolutions = find_convolutions(model)
        self.batches = batches
        self.layout: Layout = LAYOUTS[target]
        self._recipe = recipe
        self._progress = progress
        self.cache = cache
        self._choosable = [each for each in self.convolutions if self.layout.can_take(each)]
        values = quantized_values(self._choosable, self.layout)
        # The key names all that a quantizer's results depend on: graph, pictures and settings.
        self.key = f"{calibration_key(model, values, batches)} {target} {recipe}"
        self.histograms: dict[str, Histogram] = cached(cache, model, values, batches, progress)
        self._weights: dict[str, QuantizedWeight] = {}

    def default(self) -> tuple[str, ...]:
        """Return the names of the convolutions that are INT8 by default."""
        taken = [each.name for each in self.convolutions if self.layout.takes(each)]
        return tuple(name for name in taken if name not in self.drowned)

    @functools.cached_property
    def drowned(self) -> dict[str, float]:
        """Matrix products that would drown in rounding errors → their signal-to-noise ratio in dB.

        The layer before a product is linear, without normalization or activation between them, so
        the product's input channels may have very different ranges.
        """
        products = [
            each for each in self.convolutions if each.kind == "product" and self.layout.takes(each)
        ]
        sources = list(dict.fromkeys(each.source for each in products))
        moments = second_moments(activations(self.model, sources, self._few))
        left = {
            each.name: input_snr_db(
                self._exact[each.weight],
                moments[each.source],
                rounding_step(self.range_of(each.source), self.layout),
            )
            for each in products
        }
        return {name: snr for name, snr in left.items() if snr < _LEAST_INPUT_SNR_DB}

    def range_of(self, value: str) -> Range:
        """Return the range that the quantizer of a value covers."""
        return choose_range(self.histograms[value], symmetric=self.layout.symmetric)

    def quantized(self, names: Collection[str]) -> ModelProto:
        """Return a copy of the graph in which the convolutions ``names`` are INT8."""
        chosen = [each for each in self._choosable if each.name in names]
        self._quantize_weights(chosen)
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        ranges = {value: self.range_of(value) for value in quantized_values(chosen, self.layout)}
        insert_quantizers(copy, chosen, ranges, self._weights, self.layout)
        if self._recipe.correct_bias:
            correct_biases(copy, chosen, self._exact, self._weights, self._means)
        return copy

    @functools.cached_property
    def _exact(self) -> dict[str, NDArray[np.float32]]:
        tensors = initializers(self.model.graph)
        return {
            each.weight: as_kernel(each, numpy_helper.to_array(tensors[each.weight]))
            for each in self._choosable
        }

    @functools.cached_property
    def _means(self) -> dict[str, NDArray[np.float32]]:
        sources = {each.source: each.kind == "product" for each in self._choosable}
        return channel_means(self.model, sources, self._few)

    @property
    def _few(self) -> Sequence[NDArray[Any]]:
        return self.batches[:_MOMENT_IMAGES]

    def _quantize_weights(self, chosen: Sequence[Convolution]) -> None:
        missing = {each.weight: each for each in chosen if each.weight not in self._weights}
        sources = {
            name: each.source
            for name, each in missing.items()
            if self._recipe.compensate and self._is_pointwise(each)
        }
        if sources:
            self._progress(f"rounding the weights of {len(sources)} convolutions")
        runs = activations(self.model, list(dict.fromkeys(sources.values())), self._few)
        moments = second_moments(runs)
        for name in missing:
            known = moments[sources[name]] if name in sources else None
            self._weights[name] = quantize_weight(
                self._exact[name],
                known,
                half_scale=self.layout.half,
                largest=self._largest(self._exact[name]),
            )

    def _largest(self, weight: NDArray[np.float32]) -> int:
        # Kernels pair input channels; weights with a single input channel keep eight bits.
        is_paired = self.layout.paired and weight.shape[1] > 1
        is_portable = self._recipe.int8_range == "portable"
        return LARGEST_PORTABLE if is_paired and is_portable else LARGEST_INT8

    def _is_pointwise(self, each: Convolution) -> bool:
        return each.kind != "depthwise" and self._exact[each.weight].shape[2:] == (1, 1)
