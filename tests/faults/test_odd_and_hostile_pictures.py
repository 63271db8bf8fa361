"""Pictures that attack, and pictures that are merely odd."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from effdet_deploy.artifact.spec import InputSpec
from effdet_deploy.detection.images import MAX_PIXELS, load_image
from effdet_deploy.detection.letterbox import prepare_batch
from effdet_deploy.errors import ImageError

# JPEG is lossy: a flat color comes back within a few levels.
JPEG_LEVELS = 4


def encode(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """Return a PNG whose header claims a size, with little data behind it."""

    def chunk(kind: bytes, payload: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + payload))
        return struct.pack(">I", len(payload)) + kind + payload + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = (
        chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("side", [9000, 12000, 60000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bomb_is_refused(side):
    assert side * side > MAX_PIXELS
    with pytest.raises(ImageError, match="megapixels"):
        load_image(png_that_claims(side, side))


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_our_own_refusal_comes_before_pillows_warning():
    with pytest.raises(ImageError, match="megapixels"):
        load_image(png_that_claims(10000, 10000))


def test_a_lazy_pil_image_is_measured_before_it_is_decoded(monkeypatch):
    image = Image.open(io.BytesIO(encode(Image.new("L", (300, 300)), "PNG")))
    monkeypatch.setattr("effdet_deploy.detection.images.MAX_PIXELS", 300 * 300 - 1)
    monkeypatch.setattr(image, "load", lambda: pytest.fail("decoded before it was measured"))
    with pytest.raises(ImageError, match="300x300"):
        load_image(image)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_image_is_refused(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), kind)
    with pytest.raises(ImageError):
        load_image(data[: int(len(data) * share)])


@pytest.mark.parametrize("data", [b"", b"\0", b"hello, world" * 50, b"\x89PNG\r\n\x1a\n"])
def test_content_that_is_not_an_image_is_refused(data):
    with pytest.raises(ImageError, match=r"known format|cannot be decoded"):
        load_image(data)


def test_gray_becomes_three_equal_channels():
    loaded = load_image(encode(Image.new("L", (5, 4), 77), "PNG"))
    assert loaded.shape == (4, 5, 3)
    assert (loaded == 77).all()


def test_bilevel_becomes_black_and_white():
    assert (load_image(encode(Image.new("1", (5, 4), 1), "PNG")) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_keeps_its_high_byte(kind):
    levels = np.array([[0, 255, 256, 0x1234, 65535]], dtype=np.uint16)
    loaded = load_image(encode(Image.fromarray(levels), kind))
    np.testing.assert_array_equal(loaded[0, :, 0], [0, 0, 1, 0x12, 255])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composited_over_white(mode):
    color = (0, 0, 0, 128) if mode == "RGBA" else (0, 128)
    loaded = load_image(encode(Image.new(mode, (3, 3), color), "PNG"))
    assert (loaded == 127).all()


def test_palette_and_its_transparent_color_are_resolved():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(load_image(encode(image, "PNG"))[0], [[255, 0, 0], [0, 0, 255]])
    clear = load_image(encode(image, "PNG", transparency=1))
    np.testing.assert_array_equal(clear[0], [[255, 0, 0], [255, 255, 255]])


def test_cmyk_is_converted_without_a_profile():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    loaded = load_image(encode(image, "JPEG", quality=95))
    assert np.abs(loaded.astype(int) - (255, 0, 0)).max() <= JPEG_LEVELS


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(upright)
    if orientation in undo:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    loaded = load_image(encode(stored, "PNG", exif=exif))
    np.testing.assert_array_equal(loaded, upright)


@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (1000, 1), (1, 5000)])
def test_pictures_of_one_pixel_and_very_long_ones_are_placed(size):
    spec = InputSpec(height=128, width=128)
    pixels = np.full((*size, 3), 200, np.uint8)
    batch, (placed,) = prepare_batch([load_image(Image.fromarray(pixels))], spec)
    assert batch.shape == (1, 128, 128, 3)
    assert min(placed.content) >= 1
    assert (batch[0, : placed.content[0], : placed.content[1]] == 200).all()
