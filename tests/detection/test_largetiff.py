"""TIFF files beyond the pixel limit are read in parts, and give the pixels that Pillow decodes."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.detection import images, largetiff, tiling
from effdet_deploy.detection.detector import load
from effdet_deploy.detection.images import load_image
from effdet_deploy.detection.largetiff import LargeTiff
from effdet_deploy.detection.tiling import Tiles, stream_tiled
from effdet_deploy.errors import ImageError
from tests.onnx_models import SIDE, detector_spec, write_tiny

WIDTH, HEIGHT = 500, 400
PART = (13, 17, 333, 299)


def picture() -> np.ndarray:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (HEIGHT // 10, WIDTH // 10, 3)).astype(np.uint8)
    return np.kron(coarse, np.ones((10, 10, 1), np.uint8))


def write_tiled(path, pixels: np.ndarray, side: int, *, deflate: bool, prefix: bytes = b"II"):
    """Write a tiled TIFF; Pillow can read such a file, but cannot write one."""
    height, width = pixels.shape[:2]
    tiles = []
    for y in range(0, height, side):
        for x in range(0, width, side):
            tile = np.zeros((side, side, 3), np.uint8)
            cut = pixels[y : y + side, x : x + side]
            tile[: cut.shape[0], : cut.shape[1]] = cut
            tiles.append(zlib.compress(tile.tobytes()) if deflate else tile.tobytes())
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=prefix)
    tags[256], tags[257], tags[258], tags[277] = width, height, (8, 8, 8), 3
    tags[259], tags[262], tags[284] = (8 if deflate else 1), 2, 1
    tags[322], tags[323] = side, side
    tags.tagtype[324] = tags.tagtype[325] = 4
    tags[325] = tuple(map(len, tiles))
    # The offsets depend on the length of the directory, which is the same whatever they are.
    tags[324] = tuple(range(len(tiles)))
    first = io.BytesIO()
    start = tags.save(first)
    tags[324] = tuple(start + sum(map(len, tiles[:index])) for index in range(len(tiles)))
    whole = io.BytesIO()
    tags.save(whole)
    path.write_bytes(whole.getvalue() + b"".join(tiles))
    return path


@pytest.mark.parametrize("prefix", [b"II", b"MM"])
@pytest.mark.parametrize("deflate", [False, True])
def test_parts_of_a_tiled_file_are_what_pillow_decodes(tmp_path, deflate, prefix):
    path = write_tiled(tmp_path / "t.tif", picture(), 64, deflate=deflate, prefix=prefix)
    known = load_image(path)
    np.testing.assert_array_equal(known, picture())
    left, top, right, bottom = PART
    part = LargeTiff(path, 3).region(*PART)
    np.testing.assert_array_equal(part, known[top:bottom, left:right])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "P", "RGBA"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "jpeg", "packbits"])
def test_parts_of_a_file_of_strips_are_what_pillow_decodes(tmp_path, compression, mode):
    if compression == "jpeg" and mode in ("P", "RGBA"):
        pytest.skip("a JPEG has no palette and no transparency")
    path = tmp_path / "s.tif"
    Image.fromarray(picture()).convert(mode).save(path, compression=compression, strip_size=8192)
    known = load_image(path)
    left, top, right, bottom = PART
    part = LargeTiff(path, 3).region(*PART)
    np.testing.assert_array_equal(part, known[top:bottom, left:right])
    np.testing.assert_array_equal(
        LargeTiff(path, 1).region(*PART), load_image(path, 1)[top:bottom, left:right]
    )


def test_the_reduced_picture_is_the_one_that_pillow_gives(tmp_path, monkeypatch):
    path = write_tiled(tmp_path / "t.tif", picture(), 64, deflate=True)
    monkeypatch.setattr(largetiff, "_LONGEST_SIDE", 100)
    known = np.asarray(Image.fromarray(picture()).reduce(5))
    np.testing.assert_array_equal(LargeTiff(path, 3).reduced(), known)


@pytest.fixture
def small_limit(monkeypatch):
    """Pictures of more than 0.1 megapixels count as too large."""
    for module in (images, largetiff, tiling):
        monkeypatch.setattr(module, "MAX_PIXELS", 100_000)


@pytest.fixture
def detector(tmp_path):
    with load(write_tiny(tmp_path / "tiny.onnx", detector_spec(batch=BatchSpec(1, 4, 4)))) as made:
        yield made


def rows(outcome) -> list:
    return sorted(str(each) for each in outcome.detections.to_json())


def test_a_picture_beyond_the_limit_gives_the_same_rows_as_below_it(
    tmp_path, detector, monkeypatch
):
    path = write_tiled(tmp_path / "t.tif", picture(), 64, deflate=True)
    (known,) = stream_tiled(detector, [path], Tiles(SIDE))
    for module in (images, largetiff, tiling):
        monkeypatch.setattr(module, "MAX_PIXELS", 100_000)
    (found,) = stream_tiled(detector, [path], Tiles(SIDE), keep_image=True)
    assert rows(found) == rows(known)
    assert found.size == (HEIGHT, WIDTH)
    assert found.image.shape == (HEIGHT, WIDTH, 3)


def test_boxes_of_a_reduced_picture_lie_in_the_whole_one(
    tmp_path, detector, small_limit, monkeypatch
):
    path = write_tiled(tmp_path / "t.tif", picture(), 64, deflate=True)
    monkeypatch.setattr(largetiff, "_LONGEST_SIDE", 100)
    # A single tile would be the whole picture: only the reduced picture is run.
    (found,) = stream_tiled(detector, [path], Tiles(1000), keep_image=True)
    assert found.image.shape == (HEIGHT // 5, WIDTH // 5, 3)
    assert found.size == (HEIGHT, WIDTH)
    assert found.detections.boxes[:, 2].max() > WIDTH / 5


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
def test_a_large_picture_in_another_format_is_refused_with_a_remedy(
    tmp_path, detector, small_limit, suffix
):
    path = tmp_path / f"large.{suffix}"
    Image.fromarray(picture()).save(path)
    (found,) = stream_tiled(detector, [path], Tiles(SIDE))
    assert "save it as a tiled TIFF" in str(found.error)


def test_a_tiff_that_cannot_be_read_in_parts_says_why(tmp_path, detector, small_limit):
    path = tmp_path / "one.tif"
    Image.fromarray(picture()).save(path)
    turned = tmp_path / "turned.tif"
    Image.fromarray(picture()).save(turned, compression="tiff_lzw", tiffinfo={274: 6})
    broken = write_tiled(tmp_path / "broken.tif", picture(), 64, deflate=True)
    broken.write_bytes(broken.read_bytes()[:-9000])
    found = list(stream_tiled(detector, [path, turned, broken], Tiles(SIDE)))
    said = [str(each.error) for each in found]
    assert "cannot be read in parts: it consists of a single block" in said[0]
    assert "it is stored rotated or mirrored" in said[1]
    assert isinstance(found[2].error, ImageError)


def test_deep_colors_are_not_read_in_parts(tmp_path):
    path = tmp_path / "deep.tif"
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(path)
    with pytest.raises(ImageError, match="do not have 8 bits"):
        LargeTiff(path, 3)
    (tmp_path / "no.tif").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="is not a TIFF"):
        LargeTiff(tmp_path / "no.tif", 3)
