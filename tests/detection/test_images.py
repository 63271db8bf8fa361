from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from effdet_deploy.detection import images
from effdet_deploy.detection.images import find_images, load_image
from effdet_deploy.errors import ImageError


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_a_path_a_string_bytes_an_array_and_a_pil_image_read_the_same(tmp_path):
    pixels = picture(20, 30)
    image = Image.fromarray(pixels)
    path = tmp_path / "ein bild; ü.png"
    image.save(path)
    for source in (path, str(path), path.read_bytes(), image, pixels):
        np.testing.assert_array_equal(load_image(source), pixels)


def test_only_the_first_frame_of_an_animation_is_read():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (load_image(data) == (255, 0, 0)).all()


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 3), (6, 5, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_arrays_of_every_documented_shape_become_rgb(shape, dtype):
    array = np.full(shape, np.iinfo(dtype).max, dtype=dtype)
    converted = load_image(array)
    assert converted.shape == (6, 5, 3)
    assert converted.dtype == np.uint8
    assert (converted == 255).all()


def test_a_non_contiguous_array_is_read_as_it_looks():
    pixels = picture(10, 12)
    view = pixels[::2, :, ::-1]
    loaded = load_image(view)
    np.testing.assert_array_equal(loaded, view)
    assert loaded.flags.c_contiguous


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 2), np.uint8), r"\[4, 4, 2\]"),
        (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"\[1, 4, 4, 3\]"),
    ],
)
def test_arrays_that_are_no_picture_are_refused_with_what_was_got(array, said):
    with pytest.raises(ImageError, match=said):
        load_image(array)


def test_a_missing_file_and_a_directory_are_told_apart(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        load_image(tmp_path / "absent.png")
    with pytest.raises(ImageError, match="is a directory"):
        load_image(tmp_path)


def test_random_bytes_never_pass_for_a_picture():
    for seed in range(300):
        with pytest.raises(ImageError):
            load_image(np.random.default_rng(seed).bytes(2000))


def test_pictures_are_found_by_file_folder_and_pattern(tmp_path):
    for name in ("b.JPG", "a.png", "deep/c.webp", "notes.txt", "[x].png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    named = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert named == ["[x].png", "a.png", "b.JPG", "deep/c.webp"]
    assert find_images(str(tmp_path / "*.png")) == [tmp_path / "[x].png", tmp_path / "a.png"]
    assert find_images(tmp_path / "[x].png") == [tmp_path / "[x].png"]
    assert find_images(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]


@pytest.mark.parametrize("source", ["absent.png", "*.bmp"])
def test_what_names_no_picture_is_refused(tmp_path, source):
    with pytest.raises(ImageError, match="no picture"):
        find_images(tmp_path / source)


def test_postscript_is_refused_because_reading_it_would_start_a_program():
    with pytest.raises(ImageError, match="known format"):
        load_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")


def test_a_float_tiff_is_refused_because_its_range_is_unknown():
    data = encode(Image.new("F", (4, 4), 0.5), "TIFF")
    with pytest.raises(ImageError, match="mode 'F'"):
        load_image(data)


def test_the_pixel_limit_is_below_the_one_at_which_pillow_warns():
    assert Image.MAX_IMAGE_PIXELS is not None
    assert images.MAX_PIXELS < Image.MAX_IMAGE_PIXELS
