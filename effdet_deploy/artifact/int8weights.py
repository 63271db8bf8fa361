"""The weights of INT8 layers, read from an ONNX file without the ``onnx`` package."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from effdet_deploy.artifact.onnxfile import read_onnx, walking_through

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.artifact.onnxfile import Span, Walk

# Field numbers of onnx.proto.
_MODEL_GRAPH, _GRAPH_NODE, _GRAPH_INITIALIZER = 7, 1, 5
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OPERATOR = 1, 2, 3, 4
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_INT8 = 3
"""The data type INT8 in onnx.proto."""
_MAX_DIMS = 8
_WEIGHTED_OPERATORS = ("Conv", "Gemm", "MatMul")


def read_int8_weights(path: Path) -> dict[str, NDArray[np.int8]]:
    """Return the weights of every layer that computes in INT8, by the layer's name.

    Their shape is ``[out, in/groups, kernel size]``. Such a layer reads its weights through a
    DequantizeLinear from an int8 constant that is stored in the file itself.

    Raises:
        ModelFileError: the file is not an ONNX file, or is truncated or damaged.
    """
    read_onnx(path)
    with walking_through(path) as walk:
        graphs = [
            value
            for number, value in walk.fields((0, len(walk.data)))
            if number == _MODEL_GRAPH and isinstance(value, tuple)
        ]
        constants: dict[str, NDArray[np.int8]] = {}
        sources: dict[str, str] = {}
        layers: dict[str, tuple[str, str]] = {}
        for number, value in walk.fields(graphs[-1]):
            if number == _GRAPH_INITIALIZER and isinstance(value, tuple):
                constants.update(_int8_tensor(walk, value))
            elif number == _GRAPH_NODE and isinstance(value, tuple):
                said: dict[int, list[str]] = {each: [] for each in range(1, _NODE_OPERATOR + 1)}
                for inner, text in walk.fields(value):
                    if inner in said and isinstance(text, tuple):
                        said[inner].append(walk.text(text))
                inputs, operator = said[_NODE_INPUT], "".join(said[_NODE_OPERATOR])
                if operator == "DequantizeLinear" and inputs:
                    sources.update(dict.fromkeys(said[_NODE_OUTPUT], inputs[0]))
                elif operator in _WEIGHTED_OPERATORS and len(inputs) > 1:
                    layers["".join(said[_NODE_NAME])] = operator, sources.get(inputs[1], "")
    found = {}
    for name, (operator, source) in layers.items():
        weights = constants.get(source)
        if weights is not None and weights.ndim > 1:
            # The weights of a matrix product are [in, out].
            weights = weights if operator == "Conv" else weights.T
            found[name] = weights.reshape(*weights.shape[:2], -1)
    return found


def _int8_tensor(walk: Walk, span: Span) -> dict[str, NDArray[np.int8]]:
    """Return an int8 tensor under its name; an empty dict for other types and external data."""
    dims: list[int] = []
    said: dict[int, int | Span] = {}
    for number, value in walk.fields(span):
        if number == _TENSOR_DIMS and isinstance(value, int):
            dims.append(value)
        else:
            said[number] = value
    name, raw = said.get(_TENSOR_NAME), said.get(_TENSOR_RAW)
    if said.get(_TENSOR_TYPE) != _INT8 or not isinstance(raw, tuple) or not isinstance(name, tuple):
        return {}
    values = np.frombuffer(walk.data[raw[0] : raw[1]], np.int8)
    fits = len(dims) <= _MAX_DIMS and 0 < values.size == math.prod(dims)
    return {walk.text(name): values.reshape(dims)} if fits else {}
