"""Bias correction: biases cancel the mean shift that rounded weights cause.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
section 4.2, with means measured on calibration pictures. Every convolution cancels its own shift
only: correcting measured outputs layer by layer would cancel the same shift several times.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from effdet_deploy.onnxgraph.index import initializers
from effdet_deploy.onnxgraph.running import run_graph

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto

    from effdet_deploy.precision.int8.convolutions import Convolution
    from effdet_deploy.precision.int8.rounding import QuantizedWeight

    Floats = NDArray[np.float32]

_MAP, _TABLE = "bias_correction.axes.map", "bias_correction.axes.table"


def correct_biases(
    model: ModelProto,
    convolutions: Iterable[Convolution],
    exact: Mapping[str, Floats],
    weights: Mapping[str, QuantizedWeight],
    means: Mapping[str, Floats],
) -> None:
    """Correct the biases of quantized convolutions in place; convolutions without bias stay.

    Args:
        model: the quantized graph, before biases become float16.
        convolutions: the quantized convolutions.
        exact: their FP32 weights by name.
        weights: their quantized weights by name.
        means: the channel means ``[C]`` of every value that a convolution reads.
    """
    tensors = initializers(model.graph)
    shifts: dict[str, list[Floats]] = {}
    for each in convolutions:
        if each.bias:
            lost = exact[each.weight] - weights[each.weight].restored
            shifts.setdefault(each.bias, []).append(mean_output(lost, means[each.source]))
    for name, several in shifts.items():
        # Convolutions of several levels that share a bias get one correction.
        bias = numpy_helper.to_array(tensors[name]) + np.mean(several, axis=0)
        tensors[name].CopyFrom(numpy_helper.from_array(bias.astype(np.float32), name))


def mean_output(weight: Floats, means: Floats) -> Floats:
    """Return the mean output ``[out]`` of a convolution whose inputs have these channel means.

    Borders, where the kernel reaches into the padding, are treated like all other places.
    """
    kernels = weight.sum(axis=(2, 3), dtype=np.float64)
    groups = len(means) // kernels.shape[1]
    inputs = np.repeat(means.reshape(groups, -1), len(kernels) // groups, axis=0)
    found: Floats = (kernels * inputs).sum(axis=1).astype(np.float32)
    return found


def channel_means(
    model: ModelProto, values: Mapping[str, bool], batches: Sequence[NDArray[Any]]
) -> dict[str, Floats]:
    """Return the mean ``[C]`` of each value over all positions and graph inputs.

    Args:
        model: the FP32 graph.
        values: name of a value → True for a table ``[rows, C]``, False for a map ``[N,C,H,W]``.
        batches: graph inputs.
    """
    edited = deepcopy(model)
    edited.graph.initializer.append(numpy_helper.from_array(np.array([0, 2, 3]), _MAP))
    edited.graph.initializer.append(numpy_helper.from_array(np.array([0]), _TABLE))
    means = [f"bias_correction.mean.{index}" for index in range(len(values))]
    for mean, (value, is_table) in zip(means, values.items(), strict=True):
        axes = _TABLE if is_table else _MAP
        edited.graph.node.append(
            onnx.helper.make_node("ReduceMean", [value, axes], [mean], mean, keepdims=0)
        )
    runs = list(run_graph(edited, means, batches))
    return {
        value: np.mean([run[index] for run in runs], axis=0) for index, value in enumerate(values)
    }
