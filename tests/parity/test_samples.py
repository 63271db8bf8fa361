from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from effdet_deploy.artifact.spec import BatchSpec, InputSpec
from effdet_deploy.errors import EffdetDeployError
from effdet_deploy.parity.samples import plan_batches, verification_images
from tests.evaluation.sets import write_set

SIZE = InputSpec(height=128, width=160)


def write_pictures(folder, count):
    for index in range(count):
        Image.new("RGB", (50, 40), (index, 0, 0)).save(folder / f"{index}.png")


def test_four_pictures_of_the_networks_size_that_differ_and_are_always_the_same():
    images = verification_images(SIZE)
    assert [image.shape for image in images] == [(128, 160, 3)] * 4
    assert len({image.tobytes() for image in images}) == 4
    assert all(
        (one == other).all() for one, other in zip(images, verification_images(SIZE), strict=True)
    )


@pytest.mark.parametrize(("largest", "count"), [(2, 4), (6, 6), (64, 8)])
def test_a_larger_batch_gets_more_pictures_up_to_a_limit(largest, count):
    assert len(verification_images(SIZE, batch=BatchSpec(1, 1, largest))) == count


def test_a_folder_is_used_instead_and_letterboxed(tmp_path):
    write_pictures(tmp_path, 3)
    images = verification_images(SIZE, tmp_path)
    assert len(images) == 3
    assert images[1].shape == (128, 160, 3)
    assert tuple(images[1][0, 0]) == (1, 0, 0)


def test_one_image_alone_gets_company(tmp_path):
    write_pictures(tmp_path, 1)
    first, second = verification_images(SIZE, tmp_path)
    assert not np.array_equal(first, second)


def test_a_folder_without_images_and_no_folder_are_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(EffdetDeployError) as caught:
            verification_images(SIZE, folder)
        assert caught.value.exit_code == 5


def test_a_static_batch_is_filled_and_starts_over():
    assert plan_batches(4, BatchSpec(3, 3, 3)) == [[0, 1, 2], [3, 0, 1]]


def test_a_ranged_batch_is_run_at_both_ends_with_every_image():
    assert plan_batches(3, BatchSpec(1, 2, 3)) == [[0, 1, 2], [0], [1], [2]]


def test_batch_one_runs_every_image_once():
    assert plan_batches(3, BatchSpec()) == [[0], [1], [2]]


def test_pictures_may_be_named_by_annotations(tmp_path):
    annotations = write_set(tmp_path / "set", images=3)
    named = verification_images(SIZE, annotations)
    np.testing.assert_array_equal(named, verification_images(SIZE, tmp_path / "set" / "images"))
