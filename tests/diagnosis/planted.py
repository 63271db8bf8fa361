"""Faults to plant: every ``plant_`` function copies an exported detector and spoils one thing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCALED_LAYER = "backbone.blocks.2.0.conv_pw.conv"
CLIPPED_LAYER = "fpn.cell.1.fnode.2.after_combine.act.clip"
STEM = "backbone.conv_stem.conv"
BOX_PREDICT = "box_net.predict.conv_pw.gemm"
WRONG_NORM = "fpn.cell.1.fnode.2.after_combine.conv.bn"
CLIPPED_AT = 0.5
SCALE = 1.25


def network():
    """The network in eager PyTorch; callers must not change it."""
    from tests.networks import conditioned

    return conditioned("lite0", 128, 3)


def export_detector(path: Path) -> Path:
    from effdet_deploy.exporters import ExportOptions, export

    export(network(), path, ExportOptions(verify=False))
    return path


@contextlib.contextmanager
def edited(source: Path, target: Path) -> Iterator[onnx.ModelProto]:
    """Yield the model at ``source`` to be changed, then write it to ``target``."""
    model = onnx.load(source)
    yield model
    target.write_bytes(model.SerializeToString())


def node_named(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def change_constant(model: onnx.ModelProto, name: str, change) -> None:
    """Replace a constant for every node that reads it."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            values = change(numpy_helper.to_array(tensor).copy())
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))
            return
    raise LookupError(name)


def own_constant(model: onnx.ModelProto, node: onnx.NodeProto, index: int, values) -> None:
    """Give one input of a node a constant of its own."""
    name = f"planted.{node.name}.{index}"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
    node.input[index] = name


def plant_scale(source: Path, target: Path) -> Path:
    """One layer gives 1.25 times what it should."""
    with edited(source, target) as model:
        for name in node_named(model, SCALED_LAYER).input[1:]:
            change_constant(model, name, lambda values: values * np.float32(SCALE))
    return target


def plant_clip(source: Path, target: Path) -> Path:
    """One activation's range ends too early, as a badly calibrated one does."""
    with edited(source, target) as model:
        own_constant(model, node_named(model, CLIPPED_LAYER), 2, CLIPPED_AT)
    return target


def plant_bgr(source: Path, target: Path) -> Path:
    """The graph takes BGR, and its spec says RGB; lite0's mean is the same for all channels."""
    with edited(source, target) as model:
        change_constant(model, node_named(model, STEM).input[1], lambda values: values[:, ::-1])
    return target


def plant_swapped_anchors(source: Path, target: Path) -> Path:
    """Wide and tall anchors change places in the table that boxes are decoded with."""
    with edited(source, target) as model:
        names = {tensor.name: tensor for tensor in model.graph.initializer}
        tables = {
            name
            for node in model.graph.node
            if node.name.startswith("postprocess.decode")
            for name in node.input
            if name in names and len(names[name].dims) == 2 and 4 in names[name].dims
        }
        for name in tables:
            change_constant(model, name, _swap_anchors)
    return target


def _swap_anchors(table: np.ndarray) -> np.ndarray:
    """Swap wide and tall in ``[A,4]``: nine anchors per cell, the aspect ratio varies fastest."""
    cells = table.reshape(-1, 3, 3, 4)
    return cells[:, :, [0, 2, 1]].reshape(table.shape)


def plant_swapped_predictions(source: Path, target: Path) -> Path:
    """The box head gives the codes of wide anchors for tall ones and the reverse."""

    def swap(values: np.ndarray) -> np.ndarray:
        cells = values.reshape(*values.shape[:-1], 3, 3, 4)
        return cells[..., [0, 2, 1], :].reshape(values.shape)

    with edited(source, target) as model:
        for name in node_named(model, BOX_PREDICT).input[1:]:
            change_constant(model, name, swap)
    return target
