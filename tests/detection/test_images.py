from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from effdet_deploy.artifact.spec import InputSpec
from effdet_deploy.detection import images
from effdet_deploy.detection.images import (
    Letterbox,
    find_images,
    letterbox,
    load_image,
    prepare_batch,
)
from effdet_deploy.errors import ImageError

FILL = (124, 116, 104)
# Boxes are float32 and go through one multiplication each way.
ROUND_TRIP_TOLERANCE = 1e-3
# uint8 minus mean over std in float32, against float64.
NORMALISATION_TOLERANCE = 1e-5

SIDES = st.integers(1, 90)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "target"),
    [
        ((480, 640), (512, 512)),
        ((640, 480), (512, 512)),
        ((33, 47), (128, 128)),
        ((101, 77), (333, 500)),
        ((333, 500), (320, 448)),
        ((128, 128), (128, 128)),
        ((7, 113), (128, 256)),
    ],
)
def test_letterbox_equals_effdets_transform_pixel_for_pixel(size, target):
    transforms = pytest.importorskip("effdet.data.transforms")
    image = picture(*size)
    expected, annotation = transforms.ResizePad(target, fill_color=FILL)(Image.fromarray(image), {})
    canvas, placed = letterbox(image, *target, FILL)
    np.testing.assert_array_equal(canvas, np.asarray(expected))
    assert 1 / placed.scale == annotation["img_scale"]


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(1, 90), st.integers(1, 90))
def test_letterbox_matches_effdet_wherever_effdet_runs(rows, columns, height, width):
    scale = min(height / rows, width / columns)
    image = picture(rows, columns)
    canvas, placed = letterbox(image, height, width, FILL)
    assert canvas.shape == (height, width, 3)
    assert (canvas[placed.content[0] :] == FILL).all()
    assert (canvas[:, placed.content[1] :] == FILL).all()
    if int(rows * scale) and int(columns * scale):
        assert placed.content == (int(rows * scale), int(columns * scale))


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_boxes_survive_the_way_to_the_network_and_back(rows, columns, corners):
    x, y = sorted(corners[::2]), sorted(corners[1::2])
    box = np.array([[x[0] * columns, y[0] * rows, x[1] * columns, y[1] * rows]], dtype=np.float32)
    _, placed = letterbox(picture(rows, columns), 64, 96, FILL)
    in_the_network = box * np.float32(placed.scale)
    np.testing.assert_allclose(placed.to_image(in_the_network), box, atol=ROUND_TRIP_TOLERANCE)


def test_boxes_outside_the_image_are_clipped_to_it():
    placed = Letterbox(scale=0.5, content=(50, 100), image=(100, 200))
    clipped = placed.to_image(np.array([[-5, -5, 500, 500]], dtype=np.float32))
    np.testing.assert_array_equal(clipped, [[0, 0, 200, 100]])


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


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("kind", ["uint8", "float255", "normalized"])
def test_the_batch_is_what_the_graph_input_asks_for(kind, order):
    spec = InputSpec(height=16, width=24, kind=kind, channel_order=order, fill=FILL)
    originals = [picture(20, 30), picture(40, 10, seed=1)]
    batch, placed = prepare_batch(originals, spec)
    assert batch.shape == spec.shape(2)
    assert batch.flags.c_contiguous
    assert batch.dtype == (np.uint8 if kind == "uint8" else np.float32)
    expected = np.stack([letterbox(image, 16, 24, FILL)[0] for image in originals])
    if kind == "normalized":
        expected = (expected / 255 - np.array(spec.mean)) / np.array(spec.std)
    if order == "bgr":
        expected = expected[..., ::-1]
    if kind != "uint8":
        expected = expected.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(batch, expected, atol=NORMALISATION_TOLERANCE)
    assert [each.image for each in placed] == [(20, 30), (40, 10)]


def test_normalisation_equals_that_of_effdets_loader():
    torch = pytest.importorskip("torch")
    spec = InputSpec(height=16, width=16, kind="normalized")
    original = picture(16, 16)
    batch, _ = prepare_batch([original], spec)
    mean = torch.tensor([x * 255 for x in spec.mean]).view(1, 3, 1, 1)
    std = torch.tensor([x * 255 for x in spec.std]).view(1, 3, 1, 1)
    expected = (torch.from_numpy(original).permute(2, 0, 1)[None].float() - mean) / std
    np.testing.assert_allclose(batch, expected.numpy(), atol=NORMALISATION_TOLERANCE)
