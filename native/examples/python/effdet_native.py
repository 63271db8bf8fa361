"""Use libeffdet from Python with ctypes and numpy: an example of a binding for any language.

    python effdet_native.py libeffdet.so digits.onnx scene.png

effdet-deploy itself does not use it; it is meant for programs that already ship libeffdet.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FORMATS = {"rgb": 0, "bgr": 1, "rgba": 2, "bgra": 3, "rgbx": 4, "bgrx": 5, "gray": 6}


class OpenOptions(ctypes.Structure):
    """``effdet_open_options`` of effdet.h."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("backend", ctypes.c_char_p),
        ("library", ctypes.c_char_p),
        ("device", ctypes.c_char_p),
        ("threads", ctypes.c_int32),
        ("trust", ctypes.c_int32),
    )


class Image(ctypes.Structure):
    """``effdet_image`` of effdet.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("width", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("stride", ctypes.c_ssize_t),
        ("format", ctypes.c_int32),
        ("memory", ctypes.c_int32),
    )


class DetectOptions(ctypes.Structure):
    """``effdet_detect_options`` of effdet.h."""

    _fields_ = (
        ("struct_size", ctypes.c_size_t),
        ("score_threshold", ctypes.c_float),
        ("reserved", ctypes.c_int32),
        ("cuda_stream", ctypes.c_void_p),
    )


class CRow(ctypes.Structure):
    """``effdet_row`` of effdet.h."""

    _fields_ = (
        ("x1", ctypes.c_float),
        ("y1", ctypes.c_float),
        ("x2", ctypes.c_float),
        ("y2", ctypes.c_float),
        ("score", ctypes.c_float),
        ("class_index", ctypes.c_int32),
    )


class Row(NamedTuple):
    """A detection: box in pixels of the picture."""

    box: tuple[float, float, float, float]
    score: float
    label: int


class Error(RuntimeError):
    """A call failed; ``status`` is the number of ``effdet_status``."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def view(array: NDArray[Any], pixels: str = "rgb") -> Image:
    """Describe a uint8 array ``[H,W]`` or ``[H,W,channels]``; rows may have any stride."""
    if array.dtype != "uint8" or array.strides[-1] != 1:
        raise ValueError("the channels of a pixel must lie side by side, as uint8")
    height, width = array.shape[:2]
    return Image(array.ctypes.data, width, height, array.strides[0], FORMATS[pixels], 0)


class Detector:
    """An exported model.

    Args:
        library: the path of libeffdet.so.
        model: the path of the model.
        backend: ``onnxruntime``, ``openvino`` or ``tensorrt``; None chooses by the kind of file.
        runtime: the path of the runtime's shared library; None lets libeffdet find it.
        threads: number of CPU threads; 0 lets the runtime choose.
    """

    def __init__(
        self,
        library: str,
        model: str,
        backend: str | None = None,
        runtime: str | None = None,
        threads: int = 0,
    ) -> None:
        self._library = ctypes.CDLL(library)
        self._library.effdet_last_error.restype = ctypes.c_char_p
        self._library.effdet_describe.restype = ctypes.c_char_p
        self._library.effdet_describe.argtypes = [ctypes.c_void_p]
        self._library.effdet_close.argtypes = [ctypes.c_void_p]
        self._library.effdet_detect.argtypes = [
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p),
            *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p),
        ]
        self._handle = ctypes.c_void_p()
        options = OpenOptions(ctypes.sizeof(OpenOptions), threads=threads)
        options.backend = backend.encode() if backend else None
        options.library = runtime.encode() if runtime else None
        self._check(
            self._library.effdet_open(
                model.encode(), ctypes.byref(options), ctypes.byref(self._handle)
            )
        )
        self.description: dict[str, Any] = json.loads(
            self._library.effdet_describe(self._handle).decode()
        )
        self._depth = int(self.description["spec"]["output"].get("max_detections", 100))

    def detect(self, images: Sequence[Image], threshold: float = 0.0) -> list[list[Row]]:
        """Return the rows of each picture, best first; a threshold of 0 is the model's own."""
        views = (Image * len(images))(*images)
        rows = (CRow * (len(images) * self._depth))()
        counts = (ctypes.c_size_t * len(images))()
        options = DetectOptions(ctypes.sizeof(DetectOptions), threshold)
        self._check(
            self._library.effdet_detect(
                self._handle,
                *(views, len(images), ctypes.byref(options)),
                *(rows, self._depth, counts),
            )
        )
        return [
            [
                Row((each.x1, each.y1, each.x2, each.y2), each.score, each.class_index)
                for each in rows[start * self._depth : start * self._depth + count]
            ]
            for start, count in enumerate(counts)
        ]

    def close(self) -> None:
        """Release the model; closing twice is harmless."""
        self._library.effdet_close(self._handle)
        self._handle = ctypes.c_void_p()

    def _check(self, status: int) -> None:
        if status != 0:
            raise Error(status, self._library.effdet_last_error().decode())


def main() -> int:
    """Print the detections of a picture."""
    import numpy as np
    from PIL import Image as Pillow

    library, model, picture = sys.argv[1:]
    detector = Detector(library, model)
    names = [each["name"] for each in detector.description["spec"]["classes"]]
    pixels = np.asarray(Pillow.open(picture).convert("RGB"))
    for row in detector.detect([view(pixels)])[0]:
        box = " ".join(f"{side:.2f}" for side in row.box)
        sys.stdout.write(f"{names[row.label]} {row.score:.4f} {box}\n")
    detector.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
