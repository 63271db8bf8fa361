"""Eager PyTorch: what every artifact is compared with."""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from effdet_deploy.artifact.spec import HEAD_OUTPUTS, INPUT_NAME, BatchSpec, PrecisionSpec
from effdet_deploy.artifact.tensors import checked_feeds, spec_tensors
from effdet_deploy.pytorch.weights.loading import build_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from effdet_deploy.artifact.spec import DetectorSpec, InputSpec
    from effdet_deploy.pytorch.network import EfficientDet

    Heads = dict[str, NDArray[Any]]


class EagerReference:
    """The network as it was trained, run image by image with a preprocessing of its own.

    It shares neither preprocessing nor folding with the exported graph, so that a mistake in
    either shows. The network is copied and not changed.

    As a side of a comparison it gives heads, which are finished by exact greedy NMS. It is a
    runtime too, so that a Detector can run it beside exported models.

    Args:
        network: our model; anything whose ``forward`` gives effdet's two lists and that has a
            ``config`` with ``num_classes``.
        spec: of the artifact that is compared with it: what batches come in, and how heads are
            finished.
    """

    backend = "pytorch"
    device = "cpu"
    precision = "fp32"

    def __init__(self, network: EfficientDet, spec: DetectorSpec) -> None:
        self.network = copy.deepcopy(network).cpu().float().eval()
        self._double: nn.Module | None = None
        self._classes = network.config.num_classes
        raw = dataclasses.replace(spec.output, nms="none")
        self.spec = dataclasses.replace(
            spec, output=raw, precision=PrecisionSpec(), batch=BatchSpec()
        )
        self.inputs, self.outputs = spec_tensors(self.spec)

    def heads(self, batch: NDArray[Any]) -> Heads:
        """Return ``class_logits`` ``[N,A,C]`` and ``box_regression`` ``[N,A,4]``, float32."""
        return self._run(self.network, batch, torch.float32)

    def heads64(self, batch: NDArray[Any]) -> Heads:
        """Return the same, computed in float64."""
        if self._double is None:
            self._double = copy.deepcopy(self.network).double()
        return self._run(self._double, batch, torch.float64)

    def detections(self, _batch: NDArray[Any]) -> None:
        """Return None: it gives heads alone."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Heads:
        """Return the raw heads; raises TensorError on unfit feeds."""
        return self.heads(checked_feeds(feeds, self.inputs, self.spec.batch)[INPUT_NAME])

    def close(self) -> None:
        """Do nothing: the network is Python's own."""

    def _run(self, network: nn.Module, batch: NDArray[Any], dtype: torch.dtype) -> Heads:
        pixels = torch.from_numpy(normalize(batch, self.spec.input))
        runs = []
        with torch.no_grad():
            # One image at a time bounds the memory that a large network takes.
            for image in pixels:
                logits, regression = network(image[None].to(dtype))
                runs.append((flatten_levels(logits, self._classes), flatten_levels(regression, 4)))
        joined = (np.concatenate(column) for column in zip(*runs, strict=True))
        return dict(zip(HEAD_OUTPUTS, joined, strict=True))


def normalize(batch: NDArray[Any], spec: InputSpec) -> NDArray[np.float64]:
    """Return graph inputs of any kind as normalized RGB float64 ``[N,3,H,W]``."""
    if spec.kind == "uint8":
        batch = batch.transpose(0, 3, 1, 2)
    if spec.channel_order == "bgr":
        batch = batch[:, ::-1]
    pixels = batch.astype(np.float64)
    if spec.kind != "normalized":
        mean = np.array(spec.mean).reshape(3, 1, 1)
        std = np.array(spec.std).reshape(3, 1, 1)
        pixels = (pixels / 255 - mean) / std
    return np.ascontiguousarray(pixels)


def flatten_levels(levels: list[Tensor], channels: int) -> NDArray[Any]:
    """Join maps ``[1,anchors·channels,h,w]`` into ``[1,A,channels]``: rows, columns, anchors."""
    joined = [level.permute(0, 2, 3, 1).reshape(1, -1, channels).cpu().numpy() for level in levels]
    return np.concatenate(joined, axis=1)


def build_network(spec: DetectorSpec, weights: str) -> EfficientDet:
    """Build the network that an artifact was exported from, with ``weights``.

    Args:
        spec: of the artifact: variant, image size, classes and config overrides.
        weights: ``pretrained``, ``random``, a path or a URL.

    Raises:
        WeightsError: the weights are unusable or of another model.
    """
    chosen = {"num_classes", "image_size"}
    return build_model(
        spec.variant,
        weights,
        num_classes=spec.num_classes,
        image_size=(spec.input.height, spec.input.width),
        overrides={name: value for name, value in spec.overrides.items() if name not in chosen},
    ).model
