"""Detector: an exported model that takes pictures and gives detections in original pixels."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from effdet_deploy.artifact.placement import heads_placement, place, taken_input
from effdet_deploy.artifact.spec import INPUT_NAME, ClassSpec
from effdet_deploy.detection.detections import Detections
from effdet_deploy.detection.images import is_image_source, load_image
from effdet_deploy.detection.letterbox import letterbox, prepare_batch, to_input
from effdet_deploy.detection.pipeline import Prepared, Stages, outcomes
from effdet_deploy.detection.postprocess import finish_heads
from effdet_deploy.detection.thresholds import thresholds_by_class
from effdet_deploy.detection.tiling import OVERLAP, Tiles, stream_tiled
from effdet_deploy.errors import ImageError, ModelFileError, UsageError, limit, refuse
from effdet_deploy.runtimes import load_runtime
from effdet_deploy.runtimes.adapter import SideBySideRuntime
from effdet_deploy.runtimes.lanes import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from numpy.typing import NDArray

    from effdet_deploy.artifact.placement import Placement
    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.detection.images import ImageSource
    from effdet_deploy.detection.pipeline import Outcome
    from effdet_deploy.detection.thresholds import ScoreThreshold
    from effdet_deploy.runtimes.adapter import Runtime

    Tensors = dict[str, NDArray[Any]]


_FORKED = ("onnxruntime", "openvino")
"""Runtimes that can load a model again in a forked process. OpenMP, which torch uses, would wait
there for threads that only the parent has; so would CUDA."""
_MOST_PIXELS_APART = 896 * 896
"""Larger images, such as those of variants above D3, are computed one at a time in a stream: a run
takes 0.5 GB or more."""
MOST_UNNAMED = 10_000
"""A spec without class names (of an engine without its JSON file) allows class numbers below
this."""


class Detector:
    """A loaded model that detects in pictures; several threads may use it at once.

    A detector that :meth:`load` made can go to other processes: when it is unpickled, or first used
    after a fork, the model is loaded again there.

    Args:
        runtime: runs the model; :meth:`load` makes it from a file.
        loaded_with: the arguments of :meth:`load`, if that made the detector.
    """

    def __init__(self, runtime: Runtime, loaded_with: Mapping[str, Any] | None = None) -> None:
        self._runtime = runtime
        self._loaded_with = loaded_with
        self._process = os.getpid()
        self._is_closed = False
        self._left_behind: Runtime | None = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        backend: str = "auto",
        device: str = "auto",
        threads: int | None = None,
        trust: bool = False,
        allow_saturation: bool = False,
    ) -> Self:
        """Load an exported model; see :func:`effdet_deploy.runtimes.load_runtime`."""
        arguments: dict[str, Any] = {
            "path": Path(path).absolute(),
            "backend": backend,
            "device": device,
            "threads": threads,
            "trust": trust,
            "allow_saturation": allow_saturation,
        }
        return cls(load_runtime(**arguments | {"path": Path(path)}), arguments)

    @property
    def runtime(self) -> Runtime:
        """The runtime that runs the model.

        Raises:
            UsageError: this process was forked from the one that loaded the model, and the model
                cannot be loaded again here.
        """
        if os.getpid() != self._process and not self._is_closed:
            self._reopen()
        return self._runtime

    def _reopen(self) -> None:
        """Load the model again: after a fork, a runtime's threads do not exist."""
        inherited = self._runtime
        can_be_again = inherited.device == "cpu" and inherited.backend in _FORKED
        if self._loaded_with is None or not can_be_again:
            raise UsageError(
                f"A detector of {inherited.backend} on {inherited.device} does not survive the "
                "fork of its process.",
                "Start workers with multiprocessing's spawn, or load the model in every worker.",
            )
        self._runtime = load_runtime(**self._loaded_with)
        # The old runtime is kept: releasing it would wait for threads that only the parent has.
        self._left_behind = inherited
        self._process = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._loaded_with is None:
            raise UsageError(
                "Only a detector that was loaded from a file can be pickled.",
                "Use Detector.load, or pass the model's path to the other process.",
            )
        return _loaded_again, (type(self), dict(self._loaded_with))

    @property
    def spec(self) -> DetectorSpec:
        """The model's description of itself."""
        return self.runtime.spec

    def detect(
        self,
        images: ImageSource | Iterable[ImageSource],
        score_threshold: ScoreThreshold | None = None,
    ) -> list[Detections]:
        """Detect in one picture or several.

        Args:
            images: a path, encoded bytes, an open file, an array (uint8 RGB ``[H,W,3]``), a PIL
                image, or several of them, in a list or any iterable;
                :func:`effdet_deploy.detection.images.load_image` states the conversions.
            score_threshold: drop detections with lower scores; None keeps all that the model gives.
                A dict has scores by class name, and ``*`` for all other classes.

        Returns:
            One :class:`Detections` per picture, boxes xyxy in pixels of the picture as it is shown
            (EXIF orientation applied), clipped to it; boxes without area inside are dropped.

        Raises:
            ImageError: a picture is unusable.
            UsageError: the threshold is below the lowest score that the model gives, or the
                detector is closed.
        """
        floor = self.checked_threshold(score_threshold)
        if is_image_source(images):
            sources: Iterable[Any] = [images]
        elif isinstance(images, Iterable) and not isinstance(images, Mapping):
            sources = images
        else:
            raise ImageError(
                f"Pictures cannot be a {type(images).__name__}.",
                "Pass a path, encoded bytes, an open file, an array, a PIL image, or a list of "
                "them.",
            )
        # Only as many pictures as one run takes are decoded at a time.
        decoded = (load_image(each, self.spec.input.channels) for each in sources)
        found: list[Detections] = []
        while chunk := list(itertools.islice(decoded, self.spec.batch.maximum)):
            found += self._detect_chunk(chunk, floor)
        return found

    def stream(
        self,
        sources: Iterable[ImageSource],
        *,
        score_threshold: ScoreThreshold | None = None,
        decoders: int | None = None,
        keep_image: bool = False,
        batch: int | None = None,
        fast_decode: bool = False,
    ) -> Generator[Outcome]:
        """Detect in any number of pictures; the next ones are decoded while the runtime runs.

        The results are those of :meth:`detect`. A batch consists of the pictures that are ready, up
        to the largest size that the model takes; it does not wait to be full. Memory does not grow
        with the number of pictures, because only a few are taken from ``sources`` in advance.
        Closing the iterator ends its threads.

        Args:
            sources: pictures, as for :meth:`detect`; the iterable may be endless. Another thread
                iterates over it.
            score_threshold: as for :meth:`detect`.
            decoders: how many pictures are decoded at once; None for one per processor.
            keep_image: whether outcomes hold the decoded pictures.
            batch: the most pictures in a run; None for as many as the model takes.
            fast_decode: decode JPEGs at a half, a quarter or an eighth of their size if that is at
                least the size that the model takes. That is faster, but pixels differ slightly from
                those of :meth:`detect`; boxes are still in pixels of the whole picture.

        Returns:
            The outcomes of all pictures, in order. The outcome of an unusable picture holds its
            error; other errors, of the model or of ``sources``, are raised.

        Raises:
            UsageError: the threshold is below the lowest score that the model gives, a number is
                not positive, or the model does not take ``batch`` pictures.
            ImageError: ``sources`` is a single picture.
        """
        floor = self.checked_threshold(score_threshold)
        if is_image_source(sources) or isinstance(sources, Mapping):
            raise ImageError(
                f"A stream of pictures cannot be a {type(sources).__name__}.",
                "Pass a list of pictures, or another iterable of pictures.",
            )
        most = self.spec.batch.maximum
        refuse(
            limit("decoders", "at least 1", decoders, decoders is None or decoders >= 1),
            limit("batch", f"from 1 to {most}", batch, batch is None or 1 <= batch <= most),
        )
        count = decoders or len(usable_cpus())
        prepare = partial(self._prepare, keep_image=keep_image, fast=fast_decode)
        stages = self._stages(prepare, floor, batch or most)
        # While some batches are computed, equally many pictures are gathered for the next ones.
        return outcomes(sources, stages, count, ahead=count + 2 * stages.batch * stages.runs)

    def _stages(
        self,
        prepare: Callable[[Any], Prepared],
        floor: float | NDArray[np.float32],
        together: int,
    ) -> Stages:
        """Choose how to compute batches of up to ``together`` pictures while decoders run."""
        runtime, runs = self.runtime, 1
        compute: Callable[[Tensors], Tensors] = self._compute
        is_small = self.spec.input.height * self.spec.input.width <= _MOST_PIXELS_APART
        if isinstance(runtime, SideBySideRuntime) and is_small and runtime.lanes.count > 1:
            # Threads that share one image wait for each other, even longer while decoders run.
            runs, together = runtime.lanes.count, min(together, runtime.lanes.most)
            compute = runtime.run_on_one_thread
        return Stages(
            prepare=prepare,
            run=lambda found: self._run(np.concatenate([each.tensor for each in found]), compute),
            finish=lambda outputs, found: self._finish(
                floor, outputs, [each.placement for each in found]
            ),
            batch=together,
            runs=runs,
        )

    def detect_tiled(
        self,
        images: Iterable[ImageSource],
        tile: int,
        overlap: float = OVERLAP,
        score_threshold: ScoreThreshold | None = None,
    ) -> list[Detections]:
        """Detect in large pictures, in tiles and in the whole; every object is found once.

        :func:`effdet_deploy.detection.tiling.stream_tiled` does this for any number of pictures.

        Args:
            images: several pictures, as for :meth:`detect`.
            tile: the side of the tiles in pixels of the picture.
            overlap: the share of a side that neighboring tiles have in common; objects should be
                shorter than this overlap.
            score_threshold: as for :meth:`detect`.

        Returns: What :meth:`detect` returns, but a picture may have more detections than the model
            gives.

        Raises:
            ImageError: a picture is unusable.
            UsageError: the tile, the overlap or the threshold is out of range.
        """
        stream = stream_tiled(self, images, Tiles(tile, overlap), score_threshold=score_threshold)
        with contextlib.closing(stream) as outcomes:
            return [each.required() for each in outcomes]

    def close(self) -> None:
        """Release the runtime; closing twice is harmless."""
        self._is_closed = True
        if os.getpid() == self._process:
            self._runtime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        runtime = self.runtime
        return (
            f"Detector({self.spec.variant}, {runtime.backend} on {runtime.device}, "
            f"{runtime.precision})"
        )

    def checked_threshold(self, asked: ScoreThreshold | None) -> float | NDArray[np.float32]:
        """Return the threshold to use: ``asked``, or the model's floor for None.

        The floor is the lowest score that the model gives. Thresholds by class become float32
        ``[classes]``.

        Raises:
            UsageError: ``asked`` is below the floor or not within 0-1, or names an unknown class.
        """
        floor = self.spec.output.score_threshold
        if asked is None:
            return floor
        by_class = thresholds_by_class(asked, [each.name for each in self.spec.classes], floor)
        return by_class if isinstance(asked, Mapping) else asked

    def _detect_chunk(
        self, images: list[NDArray[np.uint8]], floor: float | NDArray[np.float32]
    ) -> list[Detections]:
        batch, placements = prepare_batch(images, self.spec.input)
        return self._finish(floor, self._run(batch, self._compute), placements)

    def _prepare(self, source: ImageSource, *, keep_image: bool, fast: bool) -> Prepared:
        spec, placed = self.spec.input, None

        def needed(rows: int, columns: int) -> tuple[int, int]:
            nonlocal placed
            placed = place(taken_input(spec), rows, columns)
            return placed.content

        image = load_image(source, spec.channels, needed if fast else None)
        canvas, placed = letterbox(image, taken_input(spec), placed)
        return Prepared(to_input(canvas[None], spec), placed, image if keep_image else None)

    def _run(self, batch: NDArray[Any], compute: Callable[[Tensors], Tensors]) -> Tensors:
        # The last picture is repeated until the batch has the model's smallest size.
        missing = max(0, self.spec.batch.minimum - len(batch))
        padded = np.concatenate([batch, *[batch[-1:]] * missing]) if missing else batch
        return self._detected(compute({INPUT_NAME: padded}))

    def _finish(
        self, floor: float | NDArray[np.float32], outputs: Tensors, placements: list[Placement]
    ) -> list[Detections]:
        if self.spec.output.nms == "none":
            placements = [heads_placement(self.spec.input, each) for each in placements]
        return [
            self._to_detections({name: each[row] for name, each in outputs.items()}, placed, floor)
            for row, placed in enumerate(placements)
        ]

    def detect_prepared(self, batch: NDArray[Any]) -> Tensors:
        """Run on a prepared input tensor and return the four detection outputs.

        Raw heads are post-processed in numpy. Boxes are in network pixels, as the spec's box format
        says.

        Raises:
            TensorError: the batch does not fit the model's input.
            ModelFileError: the model computed NaN or infinity.
        """
        return self._detected(self._compute({INPUT_NAME: batch}))

    def _compute(self, feeds: Tensors) -> Tensors:
        runtime = self.runtime
        run = runtime.run_side_by_side if isinstance(runtime, SideBySideRuntime) else runtime.run
        return run(feeds)

    def _detected(self, outputs: Tensors) -> Tensors:
        for name in self.spec.output.names:
            if outputs[name].dtype.kind == "f" and not np.isfinite(outputs[name]).all():
                raise ModelFileError(
                    f"The model's output '{name}' holds NaN or infinite values.",
                    "Its numbers overflow: export it again with --fp32, or check the weights.",
                )
        if self.spec.output.nms == "none":
            return finish_heads(outputs["class_logits"], outputs["box_regression"], self.spec)
        return {name: outputs[name] for name in self.spec.output.names}

    def _to_detections(
        self, row: Tensors, placed: Placement, floor: float | NDArray[np.float32]
    ) -> Detections:
        count = int(row["num_detections"][0])
        if not 0 <= count <= len(row["detection_scores"]):
            raise ModelFileError(
                f"The model found {count} boxes, but its outputs have room for "
                f"{len(row['detection_scores'])}.",
                "Export the model again with effdet-export.",
            )
        scores = row["detection_scores"][:count].astype(np.float32)
        labels = row["detection_classes"][:count].astype(np.int64)
        boxes = row["detection_boxes"][:count].astype(np.float32)
        if self.spec.output.box_format == "yxyx":
            boxes = boxes[:, [1, 0, 3, 2]]
        boxes = placed.clipped(boxes)
        unknown = labels[(labels < 0) | (labels >= (self.spec.num_classes or MOST_UNNAMED))]
        if unknown.size:
            raise ModelFileError(
                f"The model found class {unknown[0]}, but its spec names "
                f"{self.spec.num_classes} classes.",
                "Export the model again; its spec belongs to another file.",
            )
        # Classes without a name in the spec get their numbers as names.
        numbers = range(int(labels.max(initial=-1)) + 1)
        classes = self.spec.classes or [ClassSpec(str(each), each + 1) for each in numbers]
        inside = (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
        kept = inside & (scores >= (floor if isinstance(floor, float | int) else floor[labels]))
        return Detections(
            boxes[kept],
            scores[kept],
            labels[kept],
            tuple(each.name for each in classes),
            tuple(each.category_id for each in classes),
        )


def _loaded_again(kind: type[Detector], arguments: dict[str, Any]) -> Detector:
    return kind.load(**arguments)


load = Detector.load
"""Load an exported model; see :func:`effdet_deploy.runtimes.load_runtime` for the arguments."""
