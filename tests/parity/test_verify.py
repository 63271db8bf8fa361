"""An exported artifact is compared with its network, on the smallest and the largest batch."""

from __future__ import annotations

import pytest

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.detection.pictures import verification_images
from effdet_deploy.errors import ModelFileError, ResourceError
from effdet_deploy.parity.comparison import divide_into_batches, verify
from tests.parity.stand_ins import (
    StandInReference,
    StandInSide,
    detector_spec,
    finished,
    heads_of,
    with_noise,
)

SPEC = detector_spec()
IMAGES = verification_images(SPEC.input)


def verified(run_heads, spec=SPEC, reference=None, run_detections=None, **options):
    candidate = StandInSide(spec, run_heads, run_detections or finished(run_heads, spec))
    return verify(candidate, reference or StandInReference(spec), IMAGES, **options)


def test_an_artifact_with_equal_outputs_passes_every_check():
    report = verified(heads_of)
    assert report.passed
    assert [output.errors.largest for output in report.outputs] == [0, 0]
    assert report.detections.matched == 4 * 50
    assert report.detections.strays == ()
    assert report.chains.fits
    assert report.chains.needed > 0


def test_rounding_noise_passes_without_a_float64_run():
    reference = StandInReference()
    assert verified(with_noise(1e-5), reference=reference).passed
    assert reference.double_runs == 0


def test_heads_beyond_the_tolerance_fail_and_detections_show_how_much():
    report = verified(with_noise(0.01))
    assert report.status == "failed"
    assert [output.status for output in report.outputs] == ["failed", "failed"]
    assert report.detections.missed


def test_the_networks_own_error_widens_the_tolerance():
    reference = StandInReference(own_error=2e-3)
    report = verified(with_noise(1e-3), reference=reference)
    assert reference.double_runs >= len(IMAGES)
    assert [output.own_error for output in report.outputs] == pytest.approx([2e-3] * 2)
    assert [output.status for output in report.outputs] == ["passed", "passed"]


def test_detections_are_those_of_the_file_and_not_those_of_its_heads():
    report = verified(heads_of, run_detections=finished(with_noise(0.05), SPEC))
    assert [output.status for output in report.outputs] == ["passed", "passed"]
    assert report.detections.status == "failed"


def test_an_artifact_without_nms_is_finished_in_numpy():
    spec = detector_spec(nms="none")
    report = verify(StandInSide(spec, heads_of), StandInReference(spec), IMAGES)
    assert report.passed
    assert report.detections.matched == 4 * 50
    assert report.chains.allowed is None


def test_an_artifact_without_readable_heads_is_judged_by_detections():
    candidate = StandInSide(SPEC, None, finished(heads_of, SPEC))
    report = verify(candidate, StandInReference(), IMAGES)
    assert report.passed
    assert report.outputs == ()


@pytest.mark.parametrize("box_format", ["xyxy", "yxyx"])
def test_either_box_format_is_understood(box_format):
    assert verified(heads_of, detector_spec(box_format=box_format)).passed


def test_swapped_coordinates_fail():
    swapped = finished(heads_of, detector_spec(box_format="yxyx"))
    assert verified(heads_of, run_detections=swapped).detections.status == "failed"


FREE_ROWS = {"max_detections": 300, "score_threshold": 0.5}
"""With these options fewer boxes reach the threshold than there are rows."""


def test_fewer_candidates_in_the_artifact_do_not_limit_the_reference():
    reference = StandInReference(detector_spec(candidates=5000, **FREE_ROWS))
    few = detector_spec(candidates=200, **FREE_ROWS | {"max_detections": 200})
    report = verified(heads_of, few, reference)
    assert report.status == "failed"
    assert not report.reach.fits
    assert (report.reach.allowed, report.reach.known) == (200, 5000)
    assert report.reach.last_score > few.output.score_threshold
    assert report.to_dict()["candidates"]["needed"] == report.reach.needed


def test_the_needed_number_of_candidates_loses_nothing():
    reference = StandInReference(detector_spec(candidates=5000, **FREE_ROWS))
    needed = verified(heads_of, detector_spec(**FREE_ROWS), reference).reach.needed
    assert needed > 200
    for count, lost in ((needed, 0), (needed - 1, 1)):
        spec = detector_spec(candidates=count, **FREE_ROWS | {"max_detections": count})
        report = verified(heads_of, spec, reference)
        assert report.reach.needed == needed
        assert report.reach.fits == (not lost)
        assert len(report.detections.strays) == lost


def test_candidates_are_not_reported_if_both_sides_have_equal_numbers():
    assert verified(heads_of).reach is None


def test_a_greedy_nms_has_no_limit_to_the_length_of_chains():
    chains = verified(heads_of, detector_spec(nms_steps=1, nms_form="greedy")).chains
    assert chains.allowed is None
    assert chains.fits


def test_too_few_nms_steps_are_reported():
    assert not verified(heads_of, detector_spec(nms_steps=1)).chains.fits


@pytest.mark.parametrize(("precision", "noise"), [("fp16", 2e-3), ("int8", 5e-3)])
def test_a_reduced_precision_is_judged_by_detections_alone(precision, noise):
    report = verified(with_noise(noise), detector_spec(precision))
    assert report.passed
    assert all(output.allowed is None for output in report.outputs)
    assert verified(with_noise(noise)).status == "failed"


def test_every_image_is_run_with_the_smallest_and_the_largest_batch():
    sizes = []

    def run_heads(batch):
        sizes.append(len(batch))
        return heads_of(batch)

    spec = detector_spec(nms="none", batch=BatchSpec(1, 2, 3))
    report = verify(StandInSide(spec, run_heads), StandInReference(spec), IMAGES)
    assert report.passed
    assert report.batch_sizes == (3, 1)
    assert sorted(sizes) == [1, 1, 1, 1, 3, 3]
    assert report.outputs[0].by_batch == ((3, 0.0), (1, 0.0))


def test_an_artifact_that_cannot_run_fails_and_says_at_which_batch():
    def run_heads(batch):
        raise ModelFileError("A Reshape did not fit.")

    report = verified(run_heads)
    assert report.status == "failed"
    assert report.detections.broken == "at batch 1 the artifact failed: A Reshape did not fit."


def test_a_lack_of_memory_is_not_a_verdict_on_the_artifact():
    def run_heads(batch):
        raise ResourceError("Out of memory.")

    with pytest.raises(ResourceError):
        verified(run_heads)


def test_heads_of_another_shape_fail_with_both_shapes():
    def run_heads(batch):
        return {name: each[:, :-1] for name, each in heads_of(batch).items()}

    report = verified(run_heads, run_detections=finished(heads_of, SPEC))
    assert "the shapes differ" in report.outputs[0].errors.mismatch
    assert report.status == "failed"


@pytest.mark.parametrize("kind", ["uint8", "float255", "normalized"])
def test_artifact_and_reference_get_the_same_graph_input(kind):
    import dataclasses

    spec = dataclasses.replace(SPEC, input=dataclasses.replace(SPEC.input, kind=kind))
    seen = []

    def run_heads(batch):
        seen.append((batch.dtype.name, batch.shape))
        return heads_of(batch)

    assert verified(run_heads, spec).passed
    expected = ("uint8", (1, 128, 128, 3)) if kind == "uint8" else ("float32", (1, 3, 128, 128))
    assert set(seen) == {expected}


def test_the_reference_runs_each_image_once_however_often_it_is_compared():
    class Counting(StandInReference):
        runs = 0

        def heads(self, batch):
            self.runs += 1
            return heads_of(batch)

    reference = Counting()
    verified(heads_of, detector_spec(batch=BatchSpec(1, 1, 4)), reference)
    assert reference.runs == len(IMAGES)


def test_a_static_batch_is_filled_with_the_first_images_again():
    assert divide_into_batches(4, BatchSpec(3, 3, 3)) == [[0, 1, 2], [3, 0, 1]]


def test_batches_of_the_smallest_and_the_largest_size_hold_every_image():
    assert divide_into_batches(3, BatchSpec(1, 2, 3)) == [[0, 1, 2], [0], [1], [2]]


def test_batch_one_runs_every_image_once():
    assert divide_into_batches(3, BatchSpec()) == [[0], [1], [2]]
