"""Our detector in PyTorch on a GPU: TorchScript archives in FP32 and FP16, and a CUDA graph.

TorchScript reads annotations when it compiles, hence no ``from __future__ import annotations``.
"""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from effdet_deploy.artifact.spec import (
    DETECTION_OUTPUTS,
    METADATA_KEY,
    DetectorSpec,
    NmsForm,
    Precision,
    PrecisionSpec,
)
from effdet_deploy.exporters.candidates import settle_candidates
from effdet_deploy.exporters.options import ExportOptions
from effdet_deploy.exporters.source import load_source, specification_of
from effdet_deploy.progress import silent
from effdet_deploy.pytorch.graph import create_pipeline, fold_for_inference
from effdet_deploy.pytorch.scripting import script_archive

WARM_UP_RUNS = 3
"""Runs before recording, in which libraries choose kernels and allocate memory."""


class HalfFolded(nn.Module):
    """A network with folded BatchNorms that computes in FP16; inputs and outputs are float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network."""
        classes, boxes = self.network(pixels.half())
        return classes.float(), boxes.float()


def pipeline_of(
    model: nn.Module | None,
    options: ExportOptions,
    precision: Precision = "fp32",
    nms_form: NmsForm | None = None,
) -> tuple[nn.Module, DetectorSpec]:
    """Return the graph that an export would write, and its spec.

    Args:
        model: our network; None takes the network of the weights in ``options``.
        options: the export's options; their precision is ignored, because an export to TorchScript
            has no FP16.
        precision: the precision that the network computes in.
        nms_form: how the NMS is written; None writes it as an export for a CPU does.
    """
    source = load_source(model, options, silent)
    asked = specification_of(source, options, None)
    spec, _ = settle_candidates(asked, options, None, (), 0, silent)
    output = dataclasses.replace(spec.output, nms_form=nms_form or spec.output.nms_form)
    spec = dataclasses.replace(spec, precision=PrecisionSpec(precision), output=output)
    network: nn.Module = fold_for_inference(source.model, spec.input)
    if precision == "fp16":
        network = HalfFolded(network)
    return create_pipeline(network, spec).eval(), spec


def write_archive(
    path: Path, model: nn.Module | None, options: ExportOptions, precision: Precision = "fp32"
) -> Path:
    """Write a TorchScript archive as an export does, but without the ONNX tools."""
    pipeline, spec = pipeline_of(model, options, precision)
    path.write_bytes(script_archive(pipeline, {METADATA_KEY: spec.to_json()}))
    return path


class Recorded:
    """A pipeline as a CUDA graph: its kernels are recorded once and started together.

    Args:
        pipeline: a module on the GPU without a step that waits for the host.
        images: a batch on the host; later batches must have the same shape.
    """

    def __init__(self, pipeline: nn.Module, images: NDArray[Any]) -> None:
        self._images = torch.from_numpy(images).cuda()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), torch.cuda.stream(aside):
            for _ in range(WARM_UP_RUNS):
                pipeline(self._images)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(self._graph):
            self._outputs: tuple[Tensor, ...] = pipeline(self._images)

    def __call__(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Return the detection outputs, in host memory."""
        with torch.inference_mode():
            self._images.copy_(torch.from_numpy(images))
            self._graph.replay()
            arrays = [each.cpu().numpy() for each in self._outputs]
        return dict(zip(DETECTION_OUTPUTS, arrays, strict=True))
