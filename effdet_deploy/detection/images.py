"""Pictures in: finding, decoding and converting them to uint8 RGB."""

from __future__ import annotations

import glob
import io
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from effdet_deploy.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    ImageSource = str | Path | bytes | NDArray[Any] | Image.Image

MAX_PIXELS = 80_000_000
"""The largest picture that is decoded: 80 megapixels, below the 89 where Pillow starts to warn."""

# EPS is left out on purpose: Pillow would start Ghostscript on it. The first five stand first
# because Pillow has them loaded; reaching any other makes it import all of its plugins. Formats
# without a signature, such as TGA, are left out: any bytes can pass for one.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF", "JPEG2000", "AVIF")

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm"}
    | {".tif", ".tiff", ".webp"}
)
"""The suffixes by which pictures are found in a folder; a file that is named may have any."""

_ORIENTATION = 0x0112
_ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
_BACKDROP = (255, 255, 255)
_OPAQUE_MODES = {"1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV"}
_ALPHA_MODES = {"LA", "La", "PA", "RGBA", "RGBa"}
_DEEP_GRAY_MODES = {"I", "I;16", "I;16L", "I;16B", "I;16N"}
# What Pillow's decoders raise on damaged files.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    AttributeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def find_images(source: str | Path) -> list[Path]:
    """Return the pictures that a file, a folder (searched to the bottom) or a glob pattern names.

    Raises:
        ImageError: nothing is there.
    """
    path = Path(source)
    if path.is_dir():
        found = [each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES]
    elif path.exists():
        return [path]
    else:
        # Path.glob takes no absolute patterns.
        found = [Path(each) for each in glob.glob(str(source), recursive=True)]  # noqa: PTH207
    files = sorted(each for each in found if each.is_file())
    if not files:
        raise ImageError(f"There is no picture at '{source}'.", "Check the path or the pattern.")
    return files


def size_of(path: Path) -> tuple[tuple[int, int], bool] | None:
    """Return (width, height) of a picture file as it is shown, and whether EXIF turns it.

    Its pixels are not decoded. None where it cannot be opened.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            is_turned = picture.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
            return (picture.size[::-1] if is_turned else picture.size), is_turned
    except _DECODE_ERRORS:
        return None


def load_image(source: ImageSource) -> NDArray[np.uint8]:
    """Read a picture as uint8 RGB ``[H,W,3]``.

    Files, encoded bytes and PIL images: the EXIF orientation is applied, the first frame of an
    animation is taken, transparency is composited over white, 16-bit gray keeps its high byte,
    and palette, CMYK, YCbCr and HSV become RGB by Pillow's own conversion, without color profiles.
    Arrays: uint8 or uint16 (high byte kept), ``[H,W]`` or ``[H,W,1]`` gray, ``[H,W,3]`` RGB or
    ``[H,W,4]`` RGBA. OpenCV's arrays are BGR: pass ``array[..., ::-1]``.

    Raises:
        ImageError: unreadable, truncated, above :data:`MAX_PIXELS`, or of a mode, dtype or shape
            that has no conversion.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _decode(source, "The picture")
    if isinstance(source, bytes):
        return _open(io.BytesIO(source), "The picture")
    path = Path(source)
    if not path.is_file():
        kind = "is a directory" if path.is_dir() else "does not exist"
        raise ImageError(f"The picture '{path}' {kind}.", "Name an existing image file.")
    return _open(path, f"The picture '{path}'")


def _open(source: Path | io.BytesIO, what: str) -> NDArray[np.uint8]:
    try:
        with Image.open(source, formats=FORMATS) as image:
            return _decode(image, what)
    except _DECODE_ERRORS as error:
        raise _unreadable(what, error) from error


def _decode(image: Image.Image, what: str) -> NDArray[np.uint8]:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{what} is {width}x{height}, {width * height / 1e6:.0f} megapixels; "
            f"at most {MAX_PIXELS / 1e6:.0f} are decoded.",
            "Scale it down first.",
        )
    if width == 0 or height == 0:
        raise ImageError(f"{what} is empty ({width}x{height}).", "Pass a picture with pixels.")
    try:
        upright = ImageOps.exif_transpose(image)
        return np.asarray(_to_rgb(upright, what), dtype=np.uint8)
    except _DECODE_ERRORS as error:
        raise _unreadable(what, error) from error


def _unreadable(what: str, error: BaseException) -> ImageError:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError(
            f"{what} has more than the {MAX_PIXELS / 1e6:.0f} megapixels that are decoded.",
            "Scale it down first.",
        )
    if isinstance(error, UnidentifiedImageError):
        return ImageError(
            f"{what} is not an image of a known format ({', '.join(FORMATS)}).",
            "Convert it to JPEG or PNG.",
        )
    reason = str(error) or type(error).__name__
    return ImageError(f"{what} cannot be decoded: {reason}.", "Save or download it again.")


def _to_rgb(image: Image.Image, what: str) -> Image.Image:
    if image.mode in _ALPHA_MODES or (image.mode in _OPAQUE_MODES and image.has_transparency_data):
        picture = image.convert("RGBA")
        backdrop = Image.new("RGBA", picture.size, (*_BACKDROP, 255))
        return Image.alpha_composite(backdrop, picture).convert("RGB")
    if image.mode in _DEEP_GRAY_MODES:
        levels = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray((levels >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in _OPAQUE_MODES:
        return image.convert("RGB")
    raise ImageError(
        f"{what} has the pixel mode '{image.mode}', which has no fixed conversion to RGB.",
        "Convert it to 8-bit RGB first.",
    )


def _from_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    pixels = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    is_picture = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if not is_picture or pixels.size == 0:
        raise ImageError(
            f"An image array must be [H,W], [H,W,1], [H,W,3] or [H,W,4], not {list(array.shape)}.",
            "Pass one image with channels last; pass several as a list.",
        )
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ImageError(
            f"An image array must be uint8 (or uint16), not {pixels.dtype}.",
            "Scale it to 0-255 and convert it with .astype(numpy.uint8).",
        )
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        return np.ascontiguousarray(pixels)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(_to_rgb(picture, "The array"), dtype=np.uint8)
