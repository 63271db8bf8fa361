"""A side, one of the two models that are compared, is asked for its heads and its detections."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.errors import InputError
from effdet_deploy.parity.side import RuntimeSide, ask, score_error, side_of
from effdet_deploy.synthetic import structured_pictures
from tests.parity.stand_ins import (
    StandInReference,
    StandInRuntime,
    StandInSide,
    detector_spec,
    finished,
    heads_of,
    with_noise,
)

SPEC = detector_spec()
# Half and twice the size of the network's input.
SMALL, LARGE = (structured_pictures(1, side, side, seed=3)[0] for side in (64, 256))


def raw_side(run_heads=heads_of, **options) -> StandInSide:
    return StandInSide(detector_spec(nms="none", **options), run_heads)


def test_a_model_with_nms_detects_and_one_without_shows_its_heads():
    whole = side_of(StandInRuntime(SPEC, finished(heads_of, SPEC)))
    raw = side_of(StandInRuntime(detector_spec(nms="none"), heads_of))
    batch = LARGE[None, :128, :128]
    assert whole.heads(batch) is None
    assert raw.detections(batch) is None
    assert set(whole.detections(batch)) >= {"num_detections", "detection_boxes"}
    assert set(raw.heads(batch)) == {"class_logits", "box_regression"}


def test_detections_are_the_models_own_and_not_made_from_its_heads():
    """The heads come from a copy and only show which boxes entered NMS."""

    def none_found(batch):
        outputs = finished(heads_of, SPEC)(batch)
        return outputs | {"num_detections": np.zeros_like(outputs["num_detections"])}

    side = RuntimeSide(
        SPEC, StandInRuntime(SPEC, none_found), StandInRuntime(detector_spec(nms="none"), heads_of)
    )
    (answer,) = ask(side, [LARGE])
    assert len(answer.rows) == 0
    assert len(answer.nms_inputs) == 300


def test_rows_and_nms_inputs_are_in_pixels_of_each_picture():
    one, other = ask(raw_side(lambda batch: heads_of(np.zeros_like(batch))), [SMALL, LARGE])
    for part in ("rows", "nms_inputs"):
        small, large = getattr(one, part), getattr(other, part)
        np.testing.assert_allclose(large.boxes, 4 * small.boxes)
        np.testing.assert_array_equal(large.scores, small.scores)
    assert (one.placed.image, other.placed.image) == ((64, 64), (256, 256))


def test_a_batch_that_is_too_small_is_filled_up_and_only_its_pictures_are_answered():
    sizes = []

    def counted(batch):
        sizes.append(len(batch))
        return heads_of(batch)

    found = ask(raw_side(counted, batch=BatchSpec(4, 4, 4)), [SMALL, LARGE])
    expected = ask(raw_side(), [SMALL, LARGE])
    assert sizes == [4]
    for mine, known in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine.rows.boxes, known.rows.boxes)
        assert mine.heads["class_logits"].shape[0] == 1


def test_channels_are_swapped_in_the_picture_and_in_its_frame():
    seen = []

    def watching(batch):
        seen.append(batch[0])
        return heads_of(batch)

    spec = detector_spec(nms="none")
    spec = dataclasses.replace(spec, input=dataclasses.replace(spec.input, fill=(1, 2, 3)))
    side = StandInSide(spec, watching)
    ask(side, [LARGE[:128]])
    ask(side, [LARGE[:128]], swap_channels=True)
    np.testing.assert_array_equal(seen[1], seen[0][..., ::-1])
    assert tuple(seen[1][-1, -1]) == (3, 2, 1)


@pytest.mark.parametrize("part", ["class_logits", "box_regression"])
def test_answers_for_another_number_of_pictures_are_refused(part):
    def short(batch):
        return heads_of(batch) | {part: heads_of(batch)[part][:1]}

    with pytest.raises(InputError, match=f"{part} has 1 images instead of 2"):
        ask(raw_side(short), [SMALL, LARGE])


def test_scores_differ_by_no_more_than_a_quarter_of_what_their_logits_differ_by():
    (known,), (mine,) = (
        ask(side, [LARGE]) for side in (StandInReference(SPEC), raw_side(with_noise(1e-3)))
    )
    logits = np.abs(known.heads["class_logits"] - mine.heads["class_logits"])
    assert 0 < score_error(known, mine) <= logits.max() / 4
    assert score_error(known, known) == 0
