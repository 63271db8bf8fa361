"""Graphs in which tracing has made the batch size or a value constant."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.detection.pictures import verification_images
from effdet_deploy.errors import ModelFileError
from effdet_deploy.evaluation.cocoset import find_pictures
from effdet_deploy.parity.comparison import verify
from effdet_deploy.synthetic import structured_pictures
from tests.parity.stand_ins import (
    StandInReference,
    StandInSide,
    detector_spec,
    finished,
    heads_of,
)

RANGED = detector_spec(batch=BatchSpec(1, 2, 3))


def verified(run_heads, spec=RANGED, folder=None):
    images = verification_images(spec.input, find_pictures(folder), spec.batch)
    candidate = StandInSide(spec, run_heads, finished(run_heads, spec))
    return verify(candidate, StandInReference(spec), images)


def test_a_graph_without_baked_in_values_passes():
    assert verified(heads_of).passed


def test_a_graph_that_answers_for_its_traced_example_whatever_it_sees_fails():
    example = verification_images(RANGED.input)[0]

    def run_heads(batch):
        return heads_of(np.repeat(example[None], len(batch), axis=0))

    report = verified(run_heads, detector_spec())
    assert report.status == "failed"


def test_a_graph_that_answers_for_the_only_picture_of_the_user_fails(tmp_path):
    (example,) = structured_pictures(1, 128, 128, seed=7)
    Image.fromarray(example).save(tmp_path / "example.png")

    def run_heads(batch):
        return heads_of(np.repeat(example[None], len(batch), axis=0))

    assert verified(run_heads, detector_spec(), tmp_path).status == "failed"


@pytest.mark.parametrize("traced", [1, 3])
def test_a_batch_that_was_baked_in_fails_at_the_other_size(traced):
    def run_heads(batch):
        heads = heads_of(batch)
        rows = np.arange(traced) % len(batch)
        return {name: each[rows] for name, each in heads.items()}

    report = verified(run_heads)
    assert report.status == "failed"
    other = {1: 3, 3: 1}[traced]
    assert f"at batch {other}" in report.detections.broken
    assert f"has {traced} images instead of {other}" in report.detections.broken


def test_a_batch_whose_later_images_repeat_the_first_fails():
    def run_heads(batch):
        return heads_of(np.repeat(batch[:1], len(batch), axis=0))

    report = verified(run_heads)
    assert report.status == "failed"
    assert dict(report.outputs[0].by_batch)[1] == 0
    assert dict(report.outputs[0].by_batch)[3] > 0


def test_a_runtime_that_refuses_the_other_size_fails_the_verification():
    def run_heads(batch):
        if len(batch) != 1:
            raise ModelFileError("The model failed: Reshape cannot make [1,100] of 300 values.")
        return heads_of(batch)

    report = verified(run_heads)
    assert report.status == "failed"
    assert "at batch 3 the artifact failed: The model failed" in report.detections.broken
