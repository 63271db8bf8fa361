"""Generated pictures: reproducible, all different, with edges, contrast and smooth places."""

from __future__ import annotations

import numpy as np
import pytest

from effdet_deploy.synthetic import structured_pictures


@pytest.mark.parametrize(("height", "width"), [(128, 128), (96, 160), (1, 1), (7, 300)])
def test_pictures_are_uint8_rgb_of_the_size_asked_for(height, width):
    pictures = structured_pictures(2, height, width, 0)
    assert (pictures.shape, pictures.dtype) == ((2, height, width, 3), np.uint8)


def test_the_same_seed_gives_the_same_pictures_however_many_are_made():
    few, many = structured_pictures(2, 64, 80, 5), structured_pictures(4, 64, 80, 5)
    np.testing.assert_array_equal(few, many[:2])


def test_other_seeds_and_indices_give_other_pictures():
    first, second = structured_pictures(2, 64, 64, 0)
    (other,) = structured_pictures(1, 64, 64, 1)
    for one, two in ((first, second), (first, other), (second, other)):
        # Two pictures of unrelated content differ in nearly every pixel.
        assert (one != two).any(axis=2).mean() > 0.9


def test_pictures_have_contrast_edges_and_smooth_places():
    for picture in structured_pictures(8, 128, 128, 3).astype(float):
        steps = np.abs(np.diff(picture, axis=1)).max(axis=2)
        assert picture.std() > 15
        assert (steps > 40).mean() > 0.005
        assert (steps < 15).mean() > 0.4
