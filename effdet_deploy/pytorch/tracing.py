"""A network, with all that goes around it, traced into an ONNX graph by torch's exporter."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir
import torch
from onnx_ir.passes import common as passes
from onnxscript.optimizer import fold_constants_ir

from effdet_deploy.artifact.spec import INPUT_NAME
from effdet_deploy.pytorch.graph import create_pipeline, fold_for_inference
from effdet_deploy.pytorch.graph.nms import GreedyNms, GreedyNode

if TYPE_CHECKING:
    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.pytorch.network import EfficientDet

EXAMPLE_SEED = 7
"""Seed of the images with which a graph is traced; verification uses other images."""


def trace(network: EfficientDet, spec: DetectorSpec, opset: int) -> torch.onnx.ONNXProgram:
    """Trace the whole pipeline of ``spec``; a node's metadata names its module."""
    pipeline = create_pipeline(fold_for_inference(network, spec.input), spec).eval()
    for name, module in list(pipeline.named_modules()):
        if isinstance(module, GreedyNms):
            pipeline.set_submodule(name, GreedyNode(module))
    batch = (
        None
        if spec.batch.is_static
        else torch.export.Dim("batch", min=spec.batch.minimum, max=spec.batch.maximum)
    )
    logger = logging.getLogger("torch.onnx")
    with contextlib.ExitStack() as stack:
        # The exporter's remarks on its internals are not for the user's terminal.
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.ERROR)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        program = torch.onnx.export(
            pipeline,
            (example_input(spec),),
            dynamo=True,
            optimize=False,
            opset_version=opset,
            input_names=[INPUT_NAME],
            output_names=list(spec.output.names),
            dynamic_shapes=None if batch is None else ({0: batch},),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    _fold(program.model)
    return program


def example_input(spec: DetectorSpec) -> torch.Tensor:
    """Return a seeded input.

    For a range of batches it has at least two images, because one image would make the size fixed.
    """
    size = spec.batch.minimum if spec.batch.is_static else max(2, spec.batch.minimum)
    pixels = np.random.default_rng(EXAMPLE_SEED).integers(0, 256, spec.input.shape(size))
    return torch.from_numpy(pixels.astype(np.uint8 if spec.input.kind == "uint8" else np.float32))


def _fold(model: onnx_ir.Model) -> None:
    """Fold constants, and merge nodes that compute the same value.

    The exporter's own optimization also tries its rewrite rules at every node. That takes longer
    than all other steps, and the graph after simplification has the same nodes without it.
    """
    passes.InlinePass()(model)
    fold_constants_ir(model)
    onnx_ir.passes.Sequential(
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.NameFixPass(),
    )(model)
