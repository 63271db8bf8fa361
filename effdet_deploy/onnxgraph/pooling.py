"""Rewriting of poolings whose last window reaches over the border: they get explicit padding.

PyTorch rounds the output size of such a pooling up (``ceil_mode``), which onnxruntime-web's WebGPU
refuses. Sizes are fixed at export, so the padding that these windows need at the end can be
computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Sequence

_POOLS = ("MaxPool", "AveragePool")


def write_out_pool_padding(graph: ir.Graph) -> None:
    """Remove ``ceil_mode`` from the poolings of ``graph``, in place, without changing any value.

    A pooling of unknown size does not change. An average pooling that counts its padding does not
    change either: it would count explicit padding, but not the part that ``ceil_mode`` adds.
    """
    for node in graph:
        if node.op_type not in _POOLS or not node.attributes.get_int("ceil_mode", 0):
            continue
        before, after = (_sides(value) for value in (node.inputs[0], node.outputs[0]))
        counts_padding = node.attributes.get_int("count_include_pad", 0)
        if before is None or after is None or counts_padding:
            continue
        kernel = node.attributes.get_ints("kernel_shape", ())
        axes = len(kernel)
        strides = node.attributes.get_ints("strides", (1,) * axes)
        dilations = node.attributes.get_ints("dilations", (1,) * axes)
        begins = node.attributes.get_ints("pads", (0,) * 2 * axes)[:axes]
        ends = [
            # This is how far the last window reaches over the border; if it does not, no padding is
            # needed.
            max(0, (count - 1) * stride + (window - 1) * dilation + 1 - begin - side)
            for side, count, window, stride, dilation, begin in zip(
                before, after, kernel, strides, dilations, begins, strict=True
            )
        ]
        del node.attributes["ceil_mode"]
        node.attributes.add(ir.AttrInt64s("pads", [*begins, *ends]))


def _sides(value: ir.Value | None) -> Sequence[int] | None:
    """Return height and width of a feature map ``[N,C,H,W]`` if they are known."""
    shape = None if value is None else value.shape
    sides = [] if shape is None else [side for side in shape[2:] if isinstance(side, int)]
    return sides if shape is not None and len(sides) == len(shape) - 2 else None
