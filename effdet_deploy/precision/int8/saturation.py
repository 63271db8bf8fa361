"""The loss of an INT8 graph on an x86 processor without VNNI, computed on any processor.

Such a processor adds the products of two neighboring input channels in 16 bits that saturate
(``pmaddubsw``), and then adds these sums in 32 bits. MLAS (in ONNX Runtime) and oneDNN (in
OpenVINO) compute in this way. Measurements show that they pair channels 2i and 2i+1 at every place
of a kernel, move int8 inputs up by 128 first, and compute depthwise convolutions exactly.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper

from effdet_deploy.onnxgraph.index import initializers, producers
from effdet_deploy.precision.int8.calibration import activations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

_LOWEST, _HIGHEST = -(2**15), 2**15 - 1
_SIGNED_OFFSET = 128
_SAMPLES = 256
"""Places of a picture at which a layer is examined."""


@dataclass(frozen=True)
class LayerLoss:
    """A layer's loss: the share of its sums that change, and the signal-to-noise ratio in dB."""

    name: str
    changed: float
    snr_db: float


def pairwise_sums(inputs: NDArray[np.uint8], weights: NDArray[np.int8]) -> NDArray[np.int64]:
    """Add products as a processor without VNNI does.

    Args:
        inputs: ``[places, channels, taps]``, with the taps of a kernel at places of a picture.
        weights: ``[out, channels, taps]``; a last odd channel has no partner.

    Returns:
        The sums ``[places, out]``.
    """
    columns = inputs.astype(np.float64)
    rows = weights.astype(np.float64)
    sums = np.tensordot(columns, rows, ([1, 2], [1, 2]))
    for channel in range(0, rows.shape[1] - 1, 2):
        for tap in range(rows.shape[2]):
            pair = rows[:, channel : channel + 2, tap]
            risky = 255 * np.abs(pair).sum(axis=1) > _HIGHEST
            if risky.any():
                added = columns[:, channel : channel + 2, tap] @ pair[risky].T
                sums[:, risky] += np.clip(added, _LOWEST, _HIGHEST) - added
    return np.rint(sums).astype(np.int64)


def losses_without_vnni(model: ModelProto, batches: Sequence[NDArray[Any]]) -> list[LayerLoss]:
    """Return the INT8 layers of ``model`` whose sums would change, worst first.

    Args:
        model: a graph with Q/DQ pairs as :mod:`.layout` writes them.
        batches: graph inputs.
    """
    makers, constants = producers(model.graph), initializers(model.graph)
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        sources = [makers[value].op_type for value in node.input[:2] if value in makers]
        if node.op_type in ("Conv", "Gemm") and sources == ["DequantizeLinear"] * 2:
            readers.setdefault(node.input[0], []).append(node)
    sums: dict[str, list[tuple[NDArray[np.float64], NDArray[np.int64]]]] = {}
    for run in activations(model, list(readers), batches):
        for value, maps in run.items():
            scale, zero = (
                numpy_helper.to_array(constants[name]) for name in makers[value].input[1:]
            )
            offset = _SIGNED_OFFSET if zero.dtype == np.int8 else int(zero)
            for node in readers[value]:
                weights = numpy_helper.to_array(constants[makers[node.input[1]].input[0]])
                weights = weights.T if node.op_type == "Gemm" else weights
                weights = weights.reshape(*weights.shape[:2], -1)
                if weights.shape[1] != maps.shape[1]:
                    # Depthwise and other grouped convolutions do not pair products.
                    continue
                places = _places(node, maps, weights.shape[2])
                levels = np.rint(places / np.float32(scale)).astype(np.int64) + offset
                exact = np.tensordot(levels, weights.astype(np.float64), ([1, 2], [1, 2]))
                found = pairwise_sums(levels.astype(np.uint8), weights)
                # Inputs were moved up by the offset; its share is taken out of the exact and the
                # found sums.
                shift = offset * weights.sum(axis=(1, 2), dtype=np.int64)
                sums.setdefault(node.name, []).append((exact - shift, found - shift))
    losses = []
    for name, pairs in sums.items():
        exact, found = (np.concatenate(side) for side in zip(*pairs, strict=True))
        noise = float(((exact - found) ** 2).mean())
        if noise:
            spread = max(float(exact.var()), 1e-12)
            changed = float((exact != found).mean())
            losses.append(LayerLoss(name, changed, 10 * math.log10(spread / noise)))
    return sorted(losses, key=lambda each: each.snr_db)


def _places(node: NodeProto, maps: NDArray[np.float32], taps: int) -> NDArray[np.float32]:
    """Return the values that a layer reads at some places of a map, or in rows of a table.

    Places are sampled regardless of the strides, since values at other places are similar. A map is
    ``[N,C,H,W]``; it is padded with zeros, as for convolutions, and may be smaller than the kernel.
    A table is ``[rows, C]``.
    """
    random = np.random.default_rng(zlib.crc32(node.name.encode()))
    if maps.ndim == 2:
        return maps[random.integers(len(maps), size=_SAMPLES), :, np.newaxis]
    kernel = next(each.ints for each in node.attribute if each.name == "kernel_shape")
    around = [(0, 0), (0, 0), *((side // 2, side // 2) for side in kernel)]
    maps = np.pad(maps, around) if max(kernel) > 1 else maps
    windows = np.lib.stride_tricks.sliding_window_view(maps, tuple(kernel), axis=(2, 3))
    images, _, height, width = windows.shape[:4]
    image, row, column = (random.integers(side, size=_SAMPLES) for side in (images, height, width))
    found: NDArray[np.float32] = windows[image, :, row, column].reshape(_SAMPLES, -1, taps)
    return found
