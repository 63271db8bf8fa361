"""Finding, decoding and converting pictures to uint8 RGB."""

from __future__ import annotations

import glob
import io
import os
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from effdet_deploy.errors import ImageError
from effdet_deploy.files import why_no_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from numpy.typing import NDArray

    class ArrayLike(Protocol):
        """A tensor, or a part of a picture or stream, that becomes an array when it is read."""

        def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
            """Return the pixels."""

    Needed = Callable[[int, int], tuple[int, int]]
    ImageSource = (
        str | os.PathLike[Any] | bytes | bytearray | memoryview | BinaryIO | NDArray[Any]
        | Image.Image | ArrayLike
    )  # fmt: skip

MAX_PIXELS = 80_000_000
"""The largest picture that is decoded: 80 megapixels, less than the 89 at which Pillow warns."""

_TOO_LARGE = "Scale it down first, or save it as a tiled TIFF and detect in tiles (--tile N)."

# EPS is left out on purpose: Pillow would start Ghostscript for it. The first five come first
# because Pillow has loaded them; any other format makes Pillow import all of its plugins. Formats
# without a signature, such as TGA, are left out, because any bytes can pass for them.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "WEBP", "TIFF", "JPEG2000", "AVIF")

SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jpx"}
    | {".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
"""The suffixes of pictures in a folder; a file that is named explicitly may have any suffix."""

_ORIENTATION = 0x0112
_ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
_FROM_BELOW, _FROM_RIGHT = (3, 4, 6, 7), (2, 3, 7, 8)
"""EXIF orientations of pictures whose rows are stored from bottom to top, and of those whose
columns are stored from right to left."""
_STRIP_PIXELS = 1 << 19
"""How many pixels are converted at a time, so that only a small extra copy is in memory."""
_DEEP_BITS = 16
_DEPTHS = (8, 10, 12, 14)
"""Numbers of bits that cameras and scanners use in 16-bit files; the other bits are zero."""
_FEWEST_LEVELS = 16
"""The fewest levels in the high byte of 16-bit color: Pillow keeps only this byte, which holds too
little of a 12-bit picture."""
_BACKDROP = (255, 255, 255)
_OPAQUE_MODES = {"1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV"}
_ALPHA_MODES = {"LA", "La", "PA", "RGBA", "RGBa"}
_DEEP_GRAY_MODES = {"I", "I;16", "I;16L", "I;16B", "I;16N"}
UNDECODABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""The errors of Pillow's decoders for damaged files."""


def find_images(source: str | Path) -> list[Path]:
    """Return the pictures of a file, a folder (with all folders in it) or a glob pattern.

    Links to folders are followed, every folder once. A pattern without a suffix matches pictures
    and folders of pictures. Files ``._name``, in which macOS stores extra attributes, are not
    pictures.

    Raises:
        ImageError: there are no pictures.
    """
    path = Path(source)
    if path.is_dir():
        found = [each for each in _files_under(path) if each.suffix.lower() in SUFFIXES]
    elif path.exists():
        return [path]
    else:
        # Path.glob does not accept absolute patterns.
        named = [Path(each) for each in glob.glob(str(source), recursive=True)]  # noqa: PTH207
        is_open = glob.has_magic(path.suffix) or not path.suffix
        within = [each for folder in named if folder.is_dir() for each in _files_under(folder)]
        found = [each for each in within if each.suffix.lower() in SUFFIXES]
        found += [each for each in named if not is_open or each.suffix.lower() in SUFFIXES]
    files = sorted(each for each in set(found) if each.is_file() and not each.name.startswith("._"))
    if not files:
        raise ImageError(f"There is no picture at '{source}'.", "Check the path or the pattern.")
    return files


def _files_under(folder: Path) -> list[Path]:
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    links = [folder]
    # Links come last, so that a folder that is reached both directly and by a link keeps its own
    # name.
    while links:
        for here, folders, names in os.walk(links.pop()):
            state = Path(here).stat()
            if (state.st_dev, state.st_ino) in seen:
                folders.clear()
                continue
            seen.add((state.st_dev, state.st_ino))
            found += [Path(here, name) for name in names]
            links += [each for name in sorted(folders) if (each := Path(here, name)).is_symlink()]
    return found


def size_of(path: Path) -> tuple[tuple[int, int], bool] | None:
    """Return (width, height) of a picture file as it is shown, and whether EXIF turns it.

    Its pixels are not decoded. The result is None if the file cannot be opened.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            is_turned = picture.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
            return (picture.size[::-1] if is_turned else picture.size), is_turned
    except UNDECODABLE:
        return None


def load_image(
    source: ImageSource, channels: int = 3, needed: Needed | None = None
) -> NDArray[np.uint8]:
    """Read a picture as uint8 RGB ``[H,W,3]``, as gray ``[H,W,1]`` or as RGBA ``[H,W,4]``.

    For files, encoded bytes and PIL images: the EXIF orientation is applied, the first frame of an
    animation is used, transparency is composited over white, and palette, CMYK, YCbCr and HSV
    become RGB by Pillow's own conversion, without color profiles. An open file is read from its
    current position. Arrays are uint8 or uint16, ``[H,W]`` or ``[H,W,1]`` gray, ``[H,W,3]`` RGB or
    ``[H,W,4]`` RGBA; tensors of torch have the channels last or, as torchvision reads them, first.
    OpenCV's arrays are BGR: pass ``array[..., ::-1]``. Gray is made from color as Pillow does;
    RGBA keeps the transparency.

    A 16-bit picture is reduced to 8 bits: the smallest of 8, 10, 12, 14 and 16 bits that holds its
    largest value is found, and the highest eight of these bits are kept. So a 16-bit file with a
    camera's 12 bits does not become black. Only the high byte of 16-bit color can be read; a
    picture that uses fewer than five bits of it is refused.

    Args:
        source: the picture.
        channels: 1, 3 or 4.
        needed: returns the height and width that are needed, given those of a JPEG; the JPEG is
            decoded at an eighth, a quarter or a half of its size if that is large enough. Other
            pictures are always decoded whole.

    Raises:
        ImageError: the picture is unreadable, truncated, above :data:`MAX_PIXELS`, or has a mode,
            dtype or shape without a conversion.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, channels)
    if isinstance(source, Image.Image):
        return _decode(source, "The picture", channels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _open(io.BytesIO(source), "The picture", channels, needed)
    if isinstance(source, str | os.PathLike):
        return _from_file(Path(os.fsdecode(source)), channels, needed)
    if hasattr(source, "read"):
        return _open(io.BytesIO(_content_of(source)), "The picture", channels, needed)
    if hasattr(source, "__array__"):
        return _from_array(_as_array(source), channels)
    raise ImageError(
        f"A picture cannot be a {type(source).__name__}.",
        "Pass a path, encoded bytes, an open file, an array or a PIL image.",
    )


def is_image_source(value: object) -> bool:
    """Return whether a value is a single picture."""
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, np.ndarray, Image.Image)
    return isinstance(value, kinds) or hasattr(value, "read") or hasattr(value, "__array__")


def _from_file(path: Path, channels: int, needed: Needed | None) -> NDArray[np.uint8]:
    if reason := why_no_file(path):
        raise ImageError(f"The picture '{path}' {reason}.", "Name an image file.")
    return _open(path, f"The picture '{path}'", channels, needed)


def _content_of(file: Any) -> bytes:
    try:
        content = file.read()
    except (OSError, ValueError) as error:
        raise ImageError(f"The open file cannot be read: {error}.", "Open it again.") from error
    if not isinstance(content, bytes | bytearray | memoryview):
        raise ImageError(
            f"An open file of a picture must give bytes, not {type(content).__name__}.",
            'Open it with mode "rb".',
        )
    return bytes(content)


def _as_array(value: Any) -> NDArray[Any]:
    kind = type(value)
    try:
        array = np.asarray(value)
    # A tensor of torch raises these errors if it is on another device or has gradients.
    except (TypeError, ValueError, RuntimeError) as error:
        raise ImageError(
            f"A picture of type {kind.__name__} cannot be read as an array: {error}",
            "Pass tensor.detach().cpu().numpy().",
        ) from error
    is_first = array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4)
    return array.transpose(1, 2, 0) if kind.__module__.startswith("torch") and is_first else array


def _open(
    source: Path | io.BytesIO, what: str, channels: int, needed: Needed | None
) -> NDArray[np.uint8]:
    try:
        with Image.open(source, formats=FORMATS) as image:
            return _decode(image, what, channels, needed)
    except UNDECODABLE as error:
        raise _unreadable(what, error) from error


def _decode(
    image: Image.Image, what: str, channels: int, needed: Needed | None = None
) -> NDArray[np.uint8]:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{what} is {width}x{height}, {width * height / 1e6:.0f} megapixels; "
            f"at most {MAX_PIXELS / 1e6:.0f} are allowed.",
            _TOO_LARGE,
        )
    if width == 0 or height == 0:
        raise ImageError(f"{what} is empty ({width}x{height}).", "Pass a picture with pixels.")
    # Pillow forgets the number of bits when it loads the picture.
    is_deep = any(";16" in str(each.args) for each in getattr(image, "tile", ()))
    try:
        if needed is not None and image.format == "JPEG":
            is_turned = image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
            rows, columns = needed(*((width, height) if is_turned else (height, width)))
            image.draft(None, (rows, columns) if is_turned else (columns, rows))
        image.load()
        pixels = _pixels(image, what, channels)
    except UNDECODABLE as error:
        raise _unreadable(what, error) from error
    if is_deep and image.mode not in _DEEP_GRAY_MODES:
        _require_levels(image, what)
    return pixels


def _pixels(image: Image.Image, what: str, channels: int) -> NDArray[np.uint8]:
    """Convert a picture strip by strip into an upright array, so that no second copy is needed."""
    width, height = image.size
    orientation = image.getexif().get(_ORIENTATION, 1)
    is_turned = orientation in _ON_ITS_SIDE
    sides = (width, height) if is_turned else (height, width)
    pixels = np.empty((*sides, channels), dtype=np.uint8)
    stored = pixels.transpose(1, 0, 2) if is_turned else pixels
    stored = stored[::-1] if orientation in _FROM_BELOW else stored
    stored = stored[:, ::-1] if orientation in _FROM_RIGHT else stored
    shift = _DEEP_BITS - 8
    # Pillow has already scaled values to the range that a .pgm states.
    if image.mode in _DEEP_GRAY_MODES and image.format != "PPM":
        shift = _spare_bits(int(image.getextrema()[1]))  # type: ignore[arg-type]
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(height, top + rows)))
        stored[top : top + rows] = _strip(strip, what, shift, channels)
    return pixels


def _spare_bits(largest: int) -> int:
    """Return by how many bits values up to ``largest`` must be shifted to fit eight bits."""
    return next((bits for bits in _DEPTHS if largest < 1 << bits), _DEEP_BITS) - 8


def _require_levels(image: Image.Image, what: str) -> None:
    """Refuse 16-bit color whose high byte holds almost no information."""
    bands = image.getextrema()[: 3 if "A" not in image.mode else -1]
    largest = max(int(high) for _, high in bands)  # type: ignore[misc]
    if 0 < largest < _FEWEST_LEVELS:
        raise ImageError(
            f"{what} is a 16-bit color picture that uses only the lowest "
            f"{largest.bit_length() + 8} bits, and only {largest.bit_length()} of these bits can "
            "be read.",
            "Scale it to 8 bits first, as OpenCV does with cv2.normalize.",
        )


def _unreadable(what: str, error: BaseException) -> ImageError:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError(
            f"{what} has more than the {MAX_PIXELS / 1e6:.0f} megapixels that are allowed.",
            _TOO_LARGE,
        )
    if isinstance(error, UnidentifiedImageError):
        return ImageError(
            f"{what} is not an image of a known format ({', '.join(FORMATS)}).",
            "Convert it to JPEG or PNG.",
        )
    if isinstance(error, MemoryError):
        # A small damaged file can raise this too: a wrong length in it asks for gigabytes.
        return ImageError(
            f"{what} needs more memory than there is.", "Save a smaller copy, or free some memory."
        )
    reason = str(error) or type(error).__name__
    return ImageError(f"{what} cannot be decoded: {reason}.", "Save or download it again.")


def _strip(image: Image.Image, what: str, shift: int, channels: int) -> NDArray[np.uint8]:
    """Return the pixels of ``image`` as RGB, gray or RGBA; only RGBA keeps transparency."""
    if channels == 4 and _is_transparent(image):
        return np.asarray(image.convert("RGBA"))
    colors = _to_rgb(image, what, shift)
    if channels == 3:
        return colors
    converted = np.asarray(Image.fromarray(colors).convert("L" if channels == 1 else "RGBA"))
    return converted.reshape(*colors.shape[:2], channels)


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in _ALPHA_MODES or (
        image.mode in _OPAQUE_MODES and image.has_transparency_data
    )


def _to_rgb(image: Image.Image, what: str, shift: int) -> NDArray[np.uint8]:
    """Return the RGB pixels of ``image``; 16-bit gray is shifted down by ``shift`` bits."""
    if image.mode in _DEEP_GRAY_MODES:
        levels = np.clip(np.asarray(image), 0, (1 << _DEEP_BITS) - 1) >> shift
        return np.repeat(levels.astype(np.uint8)[..., None], 3, axis=2)
    if _is_transparent(image):
        picture = image.convert("RGBA")
        backdrop = Image.new("RGBA", picture.size, (*_BACKDROP, 255))
        image = Image.alpha_composite(backdrop, picture)
    elif image.mode not in _OPAQUE_MODES:
        raise ImageError(
            f"{what} has the pixel mode '{image.mode}', which has no fixed conversion to RGB.",
            "Convert it to 8-bit RGB first.",
        )
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _from_array(array: NDArray[Any], channels: int) -> NDArray[np.uint8]:
    pixels = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    is_picture = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if not is_picture or pixels.size == 0:
        raise ImageError(
            f"An image array must be [H,W], [H,W,1], [H,W,3] or [H,W,4], not {list(array.shape)}.",
            "Pass one image with channels last; pass several as a list.",
        )
    if pixels.dtype == np.uint16:
        pixels = (pixels >> _spare_bits(int(pixels.max()))).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ImageError(
            f"An image array must be uint8 (or uint16), not {pixels.dtype}.",
            "Scale it to 0-255 and convert it with .astype(numpy.uint8).",
        )
    pixels = np.ascontiguousarray(pixels)
    if pixels.shape[2:] == ((channels,) if channels != 1 else ()):
        return pixels if channels != 1 else pixels[..., None]
    return _pixels(Image.fromarray(pixels), "The array", channels)
