"""The convolutions of a network: what they read and make, what they cost, how they are grouped.

In our graphs, the pointwise half of a predict layer (a head's last layer) is one Gemm over all
pyramid levels: a matrix product with channels last.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import onnx

from effdet_deploy.onnxgraph.index import initializers, network_nodes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from onnx import ModelProto, NodeProto

Kind = Literal["stem", "depthwise", "squeeze-excite", "predict", "dense", "product"]
"""The role of a convolution in the network; ``product`` is a matrix product."""

_STAGE = re.compile(
    r"backbone\.(?:blocks\.\d+|[a-z]+\d*\.\d+|[a-z_0-9]+)|fpn\.(?:cell\.\d+|resample)|class_net|box_net"
)


@dataclass(frozen=True)
class Convolution:
    """A convolution of the graph, or a matrix product that replaces one.

    Attributes:
        name: the name of the node.
        source: the value that it reads, ``[N,C,H,W]``; for a product the table ``[rows, C]``.
        weight: the name of its constant ``[out, in/groups, kh, kw]``, which other convolutions may
            share; for a product ``[in, out]``.
        bias: the name of its constant ``[out]``, or an empty string.
        output: the value that it makes.
        kind: its role in the network.
        stage: the part of the network that it belongs to, such as ``backbone.blocks.3``.
        macs: multiply-accumulates per image.
    """

    name: str
    source: str
    weight: str
    bias: str
    output: str
    kind: Kind
    stage: str
    macs: int

    @property
    def group(self) -> str:
        """The name of its group: stage and kind. Precision is chosen for a whole group."""
        return f"{self.stage}/{self.kind}"


def as_kernel(each: Convolution, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a weight as ``[out, in/groups, kh, kw]``; products become 1x1 convolutions."""
    return weight.T[:, :, np.newaxis, np.newaxis] if each.kind == "product" else weight


def find_convolutions(model: ModelProto) -> list[Convolution]:
    """Return the convolutions with constant weights, in graph order."""
    tensors = initializers(model.graph)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in inferred.value_info
    }
    # A product reads the rows of all images in one table. The shape before that table's Reshape
    # has the number of rows of one image.
    tables = {
        node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Reshape"
    }
    found: list[Convolution] = []
    for node in network_nodes(model.graph):
        if node.op_type not in ("Conv", "Gemm") or node.input[1] not in tensors:
            continue
        if node.op_type == "Gemm":
            places = shapes.get(tables.get(node.input[0], ""), [0, 1])[1]
        else:
            places = math.prod(shapes.get(node.output[0], [])[2:])
        stage = _STAGE.match(node.name)
        found.append(
            Convolution(
                node.name,
                node.input[0],
                node.input[1],
                node.input[2] if len(node.input) > 2 else "",
                node.output[0],
                _kind(node) if found else "stem",
                stage.group() if stage else node.name,
                math.prod(tensors[node.input[1]].dims) * places,
            )
        )
    return found


def _kind(node: NodeProto) -> Kind:
    if node.op_type == "Gemm":
        return "product"
    if ".predict" in node.name:
        return "predict"
    if ".se." in node.name:
        return "squeeze-excite"
    groups = next((each.i for each in node.attribute if each.name == "group"), 1)
    return "depthwise" if groups > 1 else "dense"


def int8_share(convolutions: Iterable[Convolution], chosen: Iterable[str]) -> float:
    """Return the share of all multiply-accumulates in the ``chosen`` convolutions."""
    names = set(chosen)
    every = list(convolutions)
    total = sum(each.macs for each in every)
    return sum(each.macs for each in every if each.name in names) / total if total else 0.0
