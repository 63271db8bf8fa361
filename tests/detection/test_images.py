"""Pictures from files, bytes and arrays: the pixels that we read, and what is refused."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

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
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
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
def test_arrays_that_are_not_pictures_are_refused_with_what_was_given(array, said):
    with pytest.raises(ImageError, match=said):
        load_image(array)


def test_a_missing_file_and_a_directory_have_messages_of_their_own(tmp_path):
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
def test_a_path_or_pattern_without_a_picture_is_refused(tmp_path, source):
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
    """Otherwise Pillow's warning would come before our own refusal."""
    assert Image.MAX_IMAGE_PIXELS is not None
    assert images.MAX_PIXELS < Image.MAX_IMAGE_PIXELS


def deep_png(levels: np.ndarray) -> bytes:
    """Return ``[H,W]`` or ``[H,W,3]`` as a PNG of 16 bits, as Pillow does not write color."""

    def chunk(kind: bytes, payload: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + payload))
        return struct.pack(">I", len(payload)) + kind + payload + checksum

    height, width = levels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if levels.ndim == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "array", "color array"])
def test_a_sixteen_bit_picture_keeps_the_highest_eight_bits_that_it_uses(bits, kind):
    levels = np.random.default_rng(bits).integers(0, 1 << bits, (9, 7)).astype(np.uint16)
    levels[0, 0] = (1 << bits) - 1
    gray = (levels >> (bits - 8)).astype(np.uint8)
    source = {
        "PNG": lambda: deep_png(levels),
        "TIFF": lambda: encode(Image.fromarray(levels), "TIFF"),
        "array": lambda: levels,
        "color array": lambda: np.repeat(levels[..., None], 3, axis=2),
    }[kind]()
    np.testing.assert_array_equal(load_image(source), np.repeat(gray[..., None], 3, axis=2))


def test_a_black_picture_of_sixteen_bits_is_black():
    assert (load_image(deep_png(np.zeros((3, 4), np.uint16))) == 0).all()
    assert (load_image(deep_png(np.zeros((3, 4, 3), np.uint16))) == 0).all()


def test_a_pgm_is_scaled_by_the_range_that_it_states():
    dark = np.full((2, 2), 100, ">u2").tobytes()
    loaded = load_image(b"P5\n2 2\n4095\n" + dark)
    assert (loaded == 100 * 255 // 4095).all()


def test_color_of_twelve_bits_in_sixteen_is_refused_because_four_would_be_left():
    """Pillow keeps only the higher byte of every color value of 16 bits."""
    levels = np.full((3, 4, 3), 4095, np.uint16)
    with pytest.raises(ImageError, match="12 bits, and only 4 of these bits can be read"):
        load_image(deep_png(levels))
    assert (load_image(deep_png(levels << 4)) == 255).all()


def test_files_that_macos_writes_beside_a_picture_are_left_out(tmp_path):
    for name in ("a.png", "._a.png", "deep/._b.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert find_images(tmp_path) == [tmp_path / "a.png"]
    assert find_images(tmp_path / "*.png") == [tmp_path / "a.png"]


def test_linked_folders_are_followed_once_and_circles_end(tmp_path):
    outside = tmp_path / "outside"
    home = tmp_path / "home"
    for path in (outside / "a.png", home / "z" / "b.png"):
        path.parent.mkdir(parents=True)
        path.touch()
    (home / "a-link").symlink_to(outside)
    (home / "b-link").symlink_to(home / "z")
    (outside / "up").symlink_to(home)
    (home / "z" / "itself").symlink_to(".")
    (home / "nowhere").symlink_to("absent")
    (tmp_path / "link").symlink_to(home)
    for start in (home, tmp_path / "link"):
        named = [path.relative_to(start).as_posix() for path in find_images(start)]
        assert named == ["a-link/a.png", "z/b.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads a process's peak from /proc")
@pytest.mark.parametrize(
    ("mode", "orientation", "bytes_a_pixel"),
    # The bytes that Pillow holds for a pixel, and the three that are returned.
    [("RGB", 1, 4 + 3), ("RGB", 6, 4 + 3), ("RGBA", 3, 4 + 3), ("L", 1, 1 + 3), ("I;16", 1, 2 + 3)],
)
def test_a_large_picture_is_held_once_and_its_result_once(
    tmp_path, mode, orientation, bytes_a_pixel
):
    width, height, slack = 4000, 3000, 2
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "large.png"
    Image.new(mode, (width, height)).save(path, compress_level=1, exif=exif)
    code = (
        "import re, sys; from pathlib import Path\n"
        "from effdet_deploy.detection.images import load_image\n"
        "said = Path('/proc/self/status')\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', said.read_text())[1])\n"
        "before = peak(); load_image(sys.argv[1]); print(peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < (bytes_a_pixel + slack) * width * height


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK"])
def test_gray_is_the_gray_that_pillow_makes_of_rgb(mode):
    image = Image.fromarray(noise_rgba()).convert("RGB").convert(mode)
    found = load_image(image, 1)
    assert found.shape == (30, 20, 1)
    np.testing.assert_array_equal(found[..., 0], np.asarray(image.convert("RGB").convert("L")))


def test_rgba_keeps_its_alpha_and_a_picture_without_alpha_is_opaque():
    pixels = noise_rgba()
    np.testing.assert_array_equal(load_image(Image.fromarray(pixels), 4), pixels)
    np.testing.assert_array_equal(load_image(pixels, 4), pixels)
    opaque = load_image(pixels[..., :3].copy(), 4)
    np.testing.assert_array_equal(opaque[..., :3], pixels[..., :3])
    assert (opaque[..., 3] == 255).all()


def test_arrays_of_the_right_channels_stay_as_they_are():
    pixels = noise_rgba()
    gray = pixels[..., :1]
    np.testing.assert_array_equal(load_image(gray, 1), gray)
    np.testing.assert_array_equal(load_image(gray[..., 0], 1), gray)
    np.testing.assert_array_equal(load_image(np.repeat(gray, 3, axis=2), 1), gray)


def noise_rgba():
    return np.random.default_rng(4).integers(0, 256, (30, 20, 4), dtype=np.uint8)
