"""The pictures that an export is verified with: our own, a folder's, or those of annotations."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from effdet_deploy.artifact.spec import BatchSpec, InputSpec
from effdet_deploy.detection.pictures import (
    own_pictures,
    verification_images,
)
from effdet_deploy.errors import EffdetDeployError
from effdet_deploy.evaluation.cocoset import find_pictures, read_coco
from tests.evaluation.sets import write_set

SIZE = InputSpec(height=128, width=160)


def write_pictures(folder, count):
    for index in range(count):
        Image.new("RGB", (50, 40), (index, 0, 0)).save(folder / f"{index}.png")


def test_our_own_pictures_differ_from_one_another_and_are_always_the_same_four():
    images = verification_images(SIZE)
    assert [image.shape for image in images] == [(128, 160, 3)] * 4
    assert len({image.tobytes() for image in images}) == 4
    assert all(
        (one == other).all() for one, other in zip(images, verification_images(SIZE), strict=True)
    )


@pytest.mark.parametrize(("largest", "count"), [(2, 4), (6, 6), (64, 8)])
def test_a_larger_batch_gets_more_pictures_up_to_a_limit(largest, count):
    assert len(verification_images(SIZE, batch=BatchSpec(1, 1, largest))) == count


def test_pictures_of_a_folder_are_letterboxed_and_take_the_place_of_our_own(tmp_path):
    write_pictures(tmp_path, 3)
    images = verification_images(SIZE, find_pictures(tmp_path))
    assert len(images) == 3
    assert images[1].shape == (128, 160, 3)
    assert tuple(images[1][0, 0]) == (1, 0, 0)


def test_a_single_picture_gets_a_second_one_beside_it(tmp_path):
    """A graph that gives the same answer for every picture would pass if it saw only one."""
    write_pictures(tmp_path, 1)
    first, second = verification_images(SIZE, find_pictures(tmp_path))
    assert not np.array_equal(first, second)


def test_a_folder_without_images_and_no_folder_are_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(EffdetDeployError) as caught:
            verification_images(SIZE, find_pictures(folder))
        assert caught.value.exit_code == 5


def test_pictures_may_be_named_by_annotations(tmp_path):
    annotations = write_set(tmp_path / "set", images=3)
    named, found = (
        verification_images(SIZE, find_pictures(source))
        for source in (annotations, tmp_path / "set" / "images")
    )
    np.testing.assert_array_equal(named, found)


def test_without_a_source_there_are_no_pictures():
    assert len(find_pictures(None)) == 0


def test_a_limit_takes_the_first_pictures(tmp_path):
    write_pictures(tmp_path, 3)
    assert find_pictures(tmp_path, 2).names == ("0.png", "1.png")


def test_an_even_spread_keeps_names_and_sources_together(tmp_path):
    write_pictures(tmp_path, 9)
    chosen = find_pictures(tmp_path).spread(3)
    assert chosen.names == ("0.png", "3.png", "6.png")
    assert [path.name for path in chosen.sources] == list(chosen.names)


def test_the_pictures_of_a_set_come_in_its_order(tmp_path):
    dataset = read_coco(write_set(tmp_path / "set", images=3))
    assert dataset.pictures.sources == tuple(dataset.paths.values())
    assert dataset.pictures.names == tuple(path.name for path in dataset.paths.values())


def test_pictures_of_our_own_do_not_depend_on_how_many_are_made():
    few, many = (own_pictures(SIZE, count).letterboxed(SIZE) for count in (2, 4))
    np.testing.assert_array_equal(few, many[:2])
