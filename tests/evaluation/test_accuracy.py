"""The mAP equals that of pycocotools, and differences come with an interval."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from effdet_deploy.errors import DataError
from effdet_deploy.evaluation.accuracy import difference, measure, weighted_ap
from effdet_deploy.evaluation.cocoset import read_coco
from tests.evaluation.sets import noisy_results, small_set, write_set

# How much a sum over 101 recalls changes by rounding if it is added in another order.
ROUNDING = 1e-9


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return small_set(tmp_path_factory.mktemp("set"), images=8)


def test_perfect_detections_score_one(dataset):
    found = measure(noisy_results(dataset, 0.0), dataset)
    assert found.ap == found.ap50 == pytest.approx(1.0)
    assert min(found.by_category.values()) == pytest.approx(1.0)


def test_no_detections_score_zero(dataset):
    assert measure([], dataset).ap == 0.0


def test_our_sum_over_pictures_equals_that_of_pycocotools(dataset):
    found = measure(noisy_results(dataset, 6.0), dataset)
    assert 0.1 < found.ap < 0.9
    assert weighted_ap(found, np.ones(len(dataset), int)) == pytest.approx(found.ap, abs=ROUNDING)


def test_a_picture_of_weight_two_counts_as_two_pictures(dataset):
    """The interval comes from resampled pictures: a picture that is drawn twice has weight two."""
    results = noisy_results(dataset, 6.0)
    weights = np.ones(len(dataset), int)
    weights[2] = 2
    doubled = with_copy_of(dataset, results, 3)
    assert weighted_ap(measure(results, dataset), weights) == pytest.approx(
        measure(*doubled).ap, abs=ROUNDING
    )


def with_copy_of(dataset, results, image_id):
    """Return results and a set in which the picture ``image_id`` occurs twice."""
    extra = copy.deepcopy(dataset)
    document, fresh = extra.document, 1000
    for section in ("images", "annotations"):
        for each in list(document[section]):
            if each.get("image_id", each["id"]) != image_id:
                continue
            twin = dict(each)
            if section == "images":
                twin["id"] = fresh
            else:
                twin |= {"id": fresh + each["id"], "image_id": fresh}
            document[section].append(twin)
    twins = [r | {"image_id": fresh} for r in results if r["image_id"] == image_id]
    extra.paths[fresh] = extra.paths[image_id]
    return results + twins, extra


def test_equal_results_have_no_difference(dataset):
    found = measure(noisy_results(dataset, 6.0), dataset)
    assert difference(found, found, resamples=20) == difference(found, found, resamples=20)
    assert difference(found, found, resamples=20).high == 0.0


def test_the_interval_of_a_clear_difference_contains_the_difference_and_excludes_zero(dataset):
    good = measure(noisy_results(dataset, 2.0), dataset)
    bad = measure(noisy_results(dataset, 12.0), dataset)
    found = difference(bad, good, resamples=100)
    assert found.points == pytest.approx(100 * (bad.ap - good.ap))
    assert found.low < found.points < found.high < 0


def test_annotations_may_be_numbered_from_zero(tmp_path):
    path = write_set(tmp_path / "set")
    document = json.loads(path.read_text())
    for each in document["annotations"]:
        each["id"] -= 1
    path.write_text(json.dumps(document))
    dataset = read_coco(path)
    assert measure(noisy_results(dataset, 0.0), dataset).ap == pytest.approx(1.0)


def test_a_set_that_holds_only_crowds_is_refused(tmp_path):
    path = write_set(tmp_path / "set")
    document = json.loads(path.read_text())
    for each in document["annotations"]:
        each["iscrowd"] = 1
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="crowds"):
        measure([], read_coco(path))
