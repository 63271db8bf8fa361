"""Stand-ins for a reference and for artifacts: their heads are random numbers, seeded by pixels.

A side is one of the two models that are compared.
"""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np

from effdet_deploy.artifact.anchors import anchor_boxes
from effdet_deploy.artifact.spec import (
    AnchorSpec,
    BatchSpec,
    ClassSpec,
    DetectorSpec,
    InputSpec,
    OutputSpec,
    PrecisionSpec,
    even_octaves,
)
from effdet_deploy.detection.postprocess import finish_heads

ANCHORS = AnchorSpec(3, 7, even_octaves(3), ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4)), 4.0)
CLASSES = 4
FP16_SCALES = {"class_logits": 1.0, "box_regression": 0.1}


def detector_spec(precision="fp32", batch=BatchSpec(), **output) -> DetectorSpec:  # noqa: B008
    return DetectorSpec(
        variant="stand-in",
        input=InputSpec(height=128, width=128),
        anchors=ANCHORS,
        classes=tuple(ClassSpec(f"class {index}", index + 1) for index in range(CLASSES)),
        output=OutputSpec(**({"candidates": 300, "max_detections": 50} | output)),
        precision=PrecisionSpec(precision),
        batch=batch,
    )


def heads_of(batch: np.ndarray) -> dict[str, np.ndarray]:
    """Return heads that depend on every pixel of an image and on nothing else."""
    count = len(anchor_boxes(ANCHORS, 128, 128))
    logits, codes = [], []
    for image in batch:
        generator = np.random.default_rng(zlib.crc32(np.ascontiguousarray(image).tobytes()))
        logits.append(generator.normal(-3, 1.5, (count, CLASSES)))
        codes.append(generator.normal(0, 0.4, (count, 4)))
    return {
        "class_logits": np.stack(logits).astype(np.float32),
        "box_regression": np.stack(codes).astype(np.float32),
    }


def with_noise(size: float):
    """Return a function that gives the heads plus gaussian noise, equal noise on every call."""

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(0)
        return {
            name: each + generator.normal(0, size, each.shape).astype(np.float32)
            for name, each in heads_of(batch).items()
        }

    return run


def finished(run_heads, spec: DetectorSpec):
    """Return a function that gives the four detection outputs for the heads of ``run_heads``."""
    output = dataclasses.replace(spec.output, nms="none")
    finishing = dataclasses.replace(spec, output=output)

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        heads = run_heads(batch)
        return finish_heads(heads["class_logits"], heads["box_regression"], finishing)

    return run


class StandInSide:
    """A candidate whose heads and detections come from two functions; either may be None."""

    def __init__(self, spec: DetectorSpec, run_heads=None, run_detections=None) -> None:
        self.spec = spec
        self.precision = spec.precision.kind
        self.heads = run_heads or self._nothing
        self.heads64 = self._nothing
        self.detections = run_detections or self._nothing

    def _nothing(self, _batch) -> None:
        return None

    def effects16(self, _batch, _kept) -> None:
        return None


class StandInReference:
    """A reference that counts its runs in float64, which are slow for a real network.

    ``fp16`` has two numbers: how far FP16 weights shift every logit, and how large the noise from
    rounding each operator's result is. Box codes change less.
    """

    precision = "fp32"

    def __init__(
        self,
        spec: DetectorSpec | None = None,
        own_error: float = 0.0,
        fp16: tuple[float, float] | None = None,
    ) -> None:
        spec = spec or detector_spec()
        self.spec = dataclasses.replace(spec, precision=PrecisionSpec(), batch=BatchSpec())
        self.own_error = own_error
        self.fp16 = fp16
        self.double_runs = 0

    def detections(self, _batch) -> None:
        return None

    def heads(self, batch):
        return heads_of(batch)

    def heads64(self, batch):
        self.double_runs += 1
        return {
            name: each.astype(np.float64) + self.own_error for name, each in heads_of(batch).items()
        }

    def effects16(self, batch, _kept):
        if self.fp16 is None:
            return None
        weights, noise = self.fp16
        generator = np.random.default_rng(1)
        moved = {
            name: np.full(each.shape, weights * FP16_SCALES[name], np.float32)
            for name, each in heads_of(batch).items()
        }
        whole = {
            name: each + generator.normal(0, noise * FP16_SCALES[name], each.shape)
            for name, each in moved.items()
        }
        return moved, moved, {name: each.astype(np.float32) for name, each in whole.items()}


class StandInRuntime:
    """A runtime that has only the methods that a Detector calls."""

    def __init__(self, spec: DetectorSpec, run) -> None:
        self.spec = spec
        self._run = run
        self.is_closed = False

    def run(self, feeds):
        return self._run(feeds["images"])

    def close(self) -> None:
        self.is_closed = True
