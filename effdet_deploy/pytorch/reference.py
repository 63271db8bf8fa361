"""Eager PyTorch as the reference that artifacts are compared with."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from effdet_deploy.artifact.anchors import anchor_count
from effdet_deploy.artifact.placement import place
from effdet_deploy.artifact.resampling import resize, resize_exactly
from effdet_deploy.artifact.spec import (
    DETECTION_OUTPUTS,
    EFFDET_CANDIDATES,
    HEAD_OUTPUTS,
    INPUT_NAME,
    BatchSpec,
    PrecisionSpec,
)
from effdet_deploy.artifact.tensors import checked_feeds, spec_tensors
from effdet_deploy.errors import UsageError
from effdet_deploy.pytorch.half import HalfNetwork
from effdet_deploy.pytorch.weights.loading import build_model

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from effdet_deploy.artifact.spec import DetectorSpec, InputSpec
    from effdet_deploy.pytorch.network import EfficientDet
    from effdet_deploy.pytorch.weights.given import GivenModule
    from effdet_deploy.pytorch.weights.loading import LoadedModel

    Heads = dict[str, NDArray[Any]]


_REMEMBERED = 512 * 1024**2
"""How many bytes of heads are kept, so that the comparison need not run the network again on
pictures on which the number of candidates was chosen."""
_EFFDET_IOU = 0.5
"""The IoU threshold of the NMS in effdet's benches, its wrappers around a network."""


class EagerReference:
    """The network as it was trained, run image by image with its own preprocessing.

    It shares neither preprocessing nor folding with the exported graph, so that mistakes of the
    graph in either one show. The network is copied and not changed.

    In a comparison it gives heads. Box decoding and exact greedy NMS turn them into detections,
    from effdet's 5000 candidates, or from more if the artifact takes more. It is also a runtime, so
    that a Detector can run it beside exported models.

    Args:
        network: our model, or a module whose ``forward`` gives effdet's two lists and that has a
            ``config`` with ``num_classes``.
        spec: the spec of the artifact that is compared with it: it describes the batches, and how
            heads are turned into detections.
        remembers: how many bytes of heads are kept, for pictures that are run again.
    """

    backend = "pytorch"
    device = "cpu"
    precision = "fp32"

    def __init__(self, network: EfficientDet, spec: DetectorSpec, remembers: int = 0) -> None:
        # On CPUs, float32 convolutions are up to twice as fast in this layout.
        network = copy.deepcopy(network).cpu().float().eval()
        self.network = network.to(memory_format=torch.channels_last)
        self._double: nn.Module | None = None
        self._half: tuple[tuple[str, ...], HalfNetwork] | None = None
        self._classes = network.config.num_classes
        # If the artifact takes fewer candidates than effdet, the loss must show here.
        most = max(EFFDET_CANDIDATES, spec.output.candidates)
        raw = dataclasses.replace(spec.output, nms="none", candidates=most)
        self.spec = dataclasses.replace(
            spec, output=raw, precision=PrecisionSpec(), batch=BatchSpec()
        )
        self.inputs, self.outputs = spec_tensors(self.spec)
        self._free_bytes = remembers
        self._remembered: dict[bytes, Heads] = {}

    def heads(self, batch: NDArray[Any]) -> Heads:
        """Return ``class_logits`` ``[N,A,C]`` and ``box_regression`` ``[N,A,4]``, float32."""
        key = hashlib.sha256(batch.tobytes()).digest()
        if key in self._remembered:
            return self._remembered[key]
        heads = self._run(self.network, batch, torch.float32)
        size = sum(each.nbytes for each in heads.values())
        if size <= self._free_bytes:
            self._free_bytes -= size
            self._remembered[key] = heads
        return heads

    def heads64(self, batch: NDArray[Any]) -> Heads:
        """Return the heads computed in float64."""
        if self._double is None:
            # In float64, PyTorch is faster without channels_last.
            double = copy.deepcopy(self.network).double()
            self._double = double.to(memory_format=torch.contiguous_format)
        return self._run(self._double, batch, torch.float64)

    def effects16(
        self, batch: NDArray[Any], kept: Collection[str] = ()
    ) -> tuple[Heads, Heads, Heads]:
        """Return by how much FP16 changes the heads; see :meth:`.Side.effects16`.

        Nodes of the graph that are named in ``kept`` have FP32 weights.
        """
        if self._half is None or self._half[0] != tuple(kept):
            self._half = tuple(kept), HalfNetwork(self.network, self.spec, kept)
        return self._half[1].effects(batch)

    def detections(self, _batch: NDArray[Any]) -> Heads | None:
        """Return None: this reference gives only heads."""
        return None

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Heads:
        """Return the raw heads; raises TensorError on unfit feeds."""
        return self.heads(checked_feeds(feeds, self.inputs, self.spec.batch)[INPUT_NAME])

    def close(self) -> None:
        """Do nothing: the network is an ordinary Python object."""

    def _run(
        self, network: Callable[[Tensor], Any], batch: NDArray[Any], dtype: torch.dtype
    ) -> Heads:
        exactly = dtype == torch.float64
        pixels = torch.from_numpy(normalize(batch, self.spec.input, exactly=exactly))
        runs = []
        with torch.no_grad():
            # One image at a time limits the memory of a large network.
            for image in pixels:
                logits, regression = network(image[None].to(dtype))
                runs.append((flatten_levels(logits, self._classes), flatten_levels(regression, 4)))
        joined = (np.concatenate(column) for column in zip(*runs, strict=True))
        return dict(zip(HEAD_OUTPUTS, joined, strict=True))


class GivenReference(EagerReference):
    """A module in memory as the reference, run as it was given, with all changes made to it.

    Args:
        given: the module in memory.
        network: our copy of its network, which shows the rounding error of float32.
        spec: the spec of the artifact that is compared with it.
    """

    def __init__(self, given: GivenModule, network: EfficientDet, spec: DetectorSpec) -> None:
        super().__init__(network, spec)
        self._given = given
        self._last: tuple[NDArray[Any], Heads, NDArray[Any] | None] | None = None
        bench, output = given.bench, spec.output
        # A bench's detections come from effdet's own post-processing, in pixels of its network.
        self._has_rows = bench is not None and (
            (output.iou_threshold, output.class_agnostic) == (_EFFDET_IOU, False)
            and (spec.input.frame_size, spec.input.source_size) == (None, None)
            and (output.soft_nms is not None) == bench.soft_nms
            and output.max_detections <= bench.max_det_per_image
        )
        if bench is not None:
            pairs = self._classes * len(bench.anchors.boxes)
            raw = dataclasses.replace(
                self.spec.output, candidates=min(pairs, bench.max_detection_points)
            )
            self.spec = dataclasses.replace(self.spec, output=raw)

    def heads(self, batch: NDArray[Any]) -> Heads:
        """Return the heads of the module's own network, float32."""
        return self._answers(batch)[0]

    def heads64(self, batch: NDArray[Any]) -> Heads:
        """Return the heads without float32's rounding error, which is measured on our copy."""
        exact, rounded = super().heads64(batch), super().heads(batch)
        return {
            name: each + (exact[name] - rounded[name]) for name, each in self.heads(batch).items()
        }

    def detections(self, batch: NDArray[Any]) -> Heads | None:
        """Return the detections of the module's bench, or None without a bench that fits ``spec``.

        A bench is effdet's wrapper around a network; the bench decodes boxes and runs NMS.
        """
        rows = self._answers(batch)[1]
        if rows is None or not self._has_rows:
            return None
        output = self.spec.output
        rows = rows[:, : output.max_detections]
        found = (rows[..., 5] > 0) & (rows[..., 4] >= output.score_threshold)
        # Rows are sorted best first, so the rows that are set to zero stand at the end.
        rows = np.where(found[..., None], rows, 0)
        columns = [0, 1, 2, 3] if output.box_format == "xyxy" else [1, 0, 3, 2]
        values = (
            found.sum(axis=1, keepdims=True).astype(np.int32),
            rows[..., columns],
            rows[..., 4],
            np.maximum(rows[..., 5] - 1, 0).astype(np.int32),
        )
        return dict(zip(DETECTION_OUTPUTS, values, strict=True))

    def _answers(self, batch: NDArray[Any]) -> tuple[Heads, NDArray[Any] | None]:
        """Run the module once per batch: heads and detections are requested separately."""
        if self._last is None or self._last[0] is not batch:
            rows: list[NDArray[Any]] = []
            taken = self.spec.input
            anchors = anchor_count(self.spec.anchors, taken.height, taken.width)

            def levels(image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
                logits, codes, found = self._given.run(image)
                for what, each, channels in (
                    ("class logits", logits, self._classes),
                    ("box codes", codes, 4),
                ):
                    count = sum(level[0].numel() for level in each) / channels
                    if count != anchors:
                        raise UsageError(
                            f"The module in memory gives {what} for {count:g} anchors, but its "
                            f"configuration has {anchors}.",
                            "Undo what changed the number of anchors, or build the module from a "
                            "configuration that has this number of anchors.",
                        )
                rows.extend([] if found is None else [found.numpy()])
                return logits, codes

            heads = self._run(levels, batch, torch.float32)
            self._last = batch, heads, np.concatenate(rows) if rows else None
        return self._last[1:]


def reference_of(source: LoadedModel, spec: DetectorSpec) -> EagerReference:
    """Return the reference for an artifact of ``source``: the user's own module, or our network."""
    if source.given is None:
        return EagerReference(source.model, spec, _REMEMBERED)
    return GivenReference(source.given, source.model, spec)


def _network_input(frame: NDArray[np.uint8], spec: InputSpec, *, exactly: bool) -> NDArray[Any]:
    """Resize a frame ``[h,w,C]`` to ``[H,W,C]``: as Pillow in fixed point, or ``exactly``."""
    placed = place(spec, *frame.shape[:2])
    (left, top), (height, width) = map(int, placed.offset), placed.content
    canvas = np.empty((spec.height, spec.width, spec.channels))
    canvas[:] = np.array(spec.fill)[spec.passed_channels]
    canvas[top : top + height, left : left + width] = (resize_exactly if exactly else resize)(
        frame, height, width, spec.interpolation
    )
    return canvas


def normalize(
    batch: NDArray[Any], spec: InputSpec, *, exactly: bool = False
) -> NDArray[np.float64]:
    """Turn graph inputs of any kind into the network's input, float64 ``[N,C,H,W]``.

    Frames are resized as in training, or ``exactly``: in float64, without rounding.
    """
    if spec.source_size is not None:
        batch = np.stack([_network_input(frame, spec, exactly=exactly) for frame in batch])
    if spec.kind == "uint8":
        batch = batch.transpose(0, 3, 1, 2)
    pixels = batch[:, spec.passed_channels].astype(np.float64)
    if spec.frame_area is not None:
        top, left, bottom, right = spec.frame_area
        framed = pixels[:, :, top:bottom, left:right]
        pixels = np.empty_like(pixels)
        pixels[:] = np.array(spec.fill).reshape(-1, 1, 1)
        pixels[:, :, top:bottom, left:right] = framed
    if spec.kind != "normalized":
        mean = np.array(spec.mean).reshape(-1, 1, 1)
        std = np.array(spec.std).reshape(-1, 1, 1)
        pixels = (pixels / 255 - mean) / std
    return np.ascontiguousarray(pixels[:, spec.trained_channels])


def flatten_levels(levels: list[Tensor], channels: int) -> NDArray[Any]:
    """Join maps ``[1,anchors·channels,h,w]`` into ``[1,A,channels]``: rows, columns, anchors."""
    joined = [level.permute(0, 2, 3, 1).reshape(1, -1, channels).cpu().numpy() for level in levels]
    return np.concatenate(joined, axis=1)


def build_network(spec: DetectorSpec, weights: str) -> EfficientDet:
    """Build the network that an artifact was exported from, with ``weights``.

    Args:
        spec: the artifact's spec, with variant, image size, classes and config overrides.
        weights: ``pretrained``, ``random``, a path or a URL.

    Raises:
        WeightsError: the weights are unusable or belong to another model.
    """
    chosen = {"num_classes", "image_size"}
    return build_model(
        spec.variant,
        weights,
        num_classes=spec.num_classes,
        image_size=(spec.input.height, spec.input.width),
        overrides={name: value for name, value in spec.overrides.items() if name not in chosen},
    ).model
