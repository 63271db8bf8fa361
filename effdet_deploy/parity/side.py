"""One side of a comparison, reference or candidate, and what it says about pictures."""

from __future__ import annotations

import dataclasses
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from effdet_deploy.artifact.placement import heads_placement
from effdet_deploy.artifact.spec import HEAD_OUTPUTS, channel_places
from effdet_deploy.detection.images import load_image
from effdet_deploy.detection.letterbox import prepare_batch
from effdet_deploy.detection.postprocess import finish_heads, sigmoid, top_candidates
from effdet_deploy.errors import InputError, ModelFileError
from effdet_deploy.parity.rows import nms_inputs, rows_from_outputs
from effdet_deploy.runtimes import load_runtime
from effdet_deploy.runtimes.adapter import run_images

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from numpy.typing import NDArray

    from effdet_deploy.artifact.placement import Placement
    from effdet_deploy.artifact.spec import DetectorSpec
    from effdet_deploy.parity.rows import Rows
    from effdet_deploy.runtimes.adapter import Runtime

    Tensors = Mapping[str, NDArray[Any]]
    Pictures = Sequence[NDArray[np.uint8]]

_LOGITS, _CODES = HEAD_OUTPUTS
_SAME_SCORE = 1e-6


class Side(Protocol):
    """What gives raw heads, detections or both for a batch of graph inputs.

    Its ``spec`` says what it takes, and how heads become detections where it gives heads alone:
    exact greedy NMS in numpy, among as many boxes as the spec lets enter it.
    """

    @property
    def spec(self) -> DetectorSpec:
        """What it takes and gives."""
        ...

    @property
    def precision(self) -> str:
        """What it really computes in, which may be higher than what its file states."""
        ...

    def heads(self, batch: NDArray[Any]) -> Tensors | None:
        """Return :data:`.HEAD_OUTPUTS`, or None where they cannot be had."""
        ...

    def heads64(self, batch: NDArray[Any]) -> Tensors | None:
        """Return the heads computed in float64, or None: what a network's own rounding costs."""
        ...

    def effects16(
        self, batch: NDArray[Any], kept: Collection[str]
    ) -> tuple[Tensors, Tensors, Tensors] | None:
        """Return by how much FP16 changes a network's heads, or None.

        By its weights alone; where values that are only moved are rounded as well; where all are.
        Nodes of the graph that are named in ``kept`` stay FP32.
        """
        ...

    def detections(self, batch: NDArray[Any]) -> Tensors | None:
        """Return the four detection outputs, or None where heads are all it gives."""
        ...


@dataclass(frozen=True, eq=False)
class RuntimeSide:
    """An exported model.

    Attributes:
        spec: of the artifact.
        whole: gives its detections; None where it has none, or where nothing here runs its NMS.
        raw: gives its raw heads: the model itself, or a copy that has them as outputs.
    """

    spec: DetectorSpec
    whole: Runtime | None = None
    raw: Runtime | None = None

    @property
    def precision(self) -> str:
        """What its engine computes in."""
        runtime = self.raw or self.whole
        return self.spec.precision.kind if runtime is None else runtime.precision

    def heads(self, batch: NDArray[Any]) -> Tensors | None:
        """Return the raw heads where there is something that shows them."""
        if self.raw is None:
            return None
        outputs = run_images(self.raw, batch)
        return {name: outputs[name] for name in HEAD_OUTPUTS}

    def heads64(self, _batch: NDArray[Any]) -> None:
        """Return None: a file says in which precision it computes."""

    def effects16(self, _batch: NDArray[Any], _kept: Collection[str]) -> None:
        """Return None: what FP16 does to a network, the network alone can say."""

    def detections(self, batch: NDArray[Any]) -> Tensors | None:
        """Return what the model itself detects."""
        return None if self.whole is None else run_images(self.whole, batch)


def side_of(runtime: Runtime) -> RuntimeSide:
    """Return a loaded model with what it shows by itself."""
    shows_heads = runtime.spec.output.nms == "none"
    return RuntimeSide(
        runtime.spec, None if shows_heads else runtime, runtime if shows_heads else None
    )


def open_side(path: Path, stack: ExitStack, **settings: Any) -> RuntimeSide:
    """Load an exported model, with its raw heads where they can be had; ``stack`` closes it.

    The ``onnx`` package shows the heads of an ONNX file with NMS: without that package, or in
    files of others, they stay unknown.

    Args:
        path: of the model.
        stack: what to close is left there.
        settings: of :func:`effdet_deploy.runtimes.load_runtime`.
    """
    side = side_of(stack.enter_context(closing(load_runtime(path, **settings))))
    if side.whole is not None and side.whole.backend in ("onnxruntime", "openvino"):
        with suppress(ImportError, ModelFileError):
            raw = open_heads(path, side.spec, stack, **settings)
            return RuntimeSide(side.spec, side.whole, raw)
    return side


def open_heads(path: Path, spec: DetectorSpec, stack: ExitStack, **settings: Any) -> Runtime:
    """Load a copy of an ONNX file that has its raw heads as outputs; ``stack`` closes it.

    Raises:
        ModelFileError: the graph holds no nodes named as our exporter names the heads.
    """
    from effdet_deploy.onnxgraph.raw_heads import with_heads

    copy = stack.enter_context(with_heads(path, spec))
    return stack.enter_context(closing(load_runtime(copy, **settings)))


def open_export(path: Path, spec: DetectorSpec, stack: ExitStack, **settings: Any) -> RuntimeSide:
    """Load an ONNX file of ours with its raw heads; ``stack`` closes it.

    Of a graph that ends in a plugin, the raw heads alone can be run; they are finished in numpy.

    Raises:
        ModelFileError: the graph holds no nodes named as our exporter names the heads.
    """
    raw, whole = open_heads(path, spec, stack, **settings), None
    if spec.output.nms not in ("none", "plugin"):
        whole = stack.enter_context(closing(load_runtime(path, **settings)))
    return RuntimeSide(spec, whole, raw)


@dataclass(frozen=True, eq=False)
class Answer:
    """What one side says about one picture.

    Attributes:
        spec: of the side.
        rows: detections, boxes in pixels of the picture, unclipped.
        heads: ``class_logits`` ``[1,A,C]`` and ``box_regression`` ``[1,A,4]``, or None.
        placed: how the picture came into the network's input.
        expected: the heads with FP16 weights, where an artifact in FP16 is compared with them.
    """

    spec: DetectorSpec
    rows: Rows
    heads: Tensors | None
    placed: Placement
    expected: Tensors | None = None

    @cached_property
    def nms_inputs(self) -> Rows | None:
        """What entered NMS, in pixels of the picture; None where the heads are unknown."""
        if self.heads is None:
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            rows = nms_inputs(self.heads[_LOGITS][0], self.heads[_CODES][0], self.spec)
        return rows.in_picture(heads_placement(self.spec.input, self.placed))


def reach_of(answer: Answer, floor: float = 0.0) -> int:
    """Return how many of its NMS inputs a side needs for the rows that it keeps; 0 if unknown."""
    inputs, rows = answer.nms_inputs, answer.rows.above(floor)
    if inputs is None or not len(rows):
        return 0
    # A side's own rows may have another rounding of the sigmoid than the inputs have here.
    return int(np.count_nonzero(inputs.scores >= rows.scores.min() - _SAME_SCORE))


def ask(side: Side, pictures: Pictures, *, swap_channels: bool = False) -> list[Answer]:
    """Run one side once on pictures uint8 ``[h,w,C]``, RGB unless it takes others.

    Args:
        side: that gives heads, detections or both.
        pictures: at most as many as it takes at once.
        swap_channels: run it on the pictures with red and blue swapped.

    Raises:
        InputError: the side cannot be run, or answers for another number of pictures.
    """
    batch, placed = graph_input(side.spec, pictures, swap_channels=swap_channels)
    return answers(side.spec, placed, side.heads(batch), side.detections(batch), len(batch))


def graph_input(
    spec: DetectorSpec, pictures: Pictures, *, swap_channels: bool = False
) -> tuple[NDArray[Any], list[Placement]]:
    """Return what a graph takes, and how each picture came into it.

    Where the pictures are fewer than the smallest batch, the last is repeated.
    """
    taken = spec.input
    pictures = [load_image(each, taken.channels) for each in pictures]
    if swap_channels:
        places = channel_places("bgr", taken.channels)
        taken = dataclasses.replace(taken, fill=tuple(taken.fill[each] for each in places))
        pictures = [np.ascontiguousarray(picture[..., places]) for picture in pictures]
    batch, placed = prepare_batch(pictures, taken)
    rows = np.arange(max(len(batch), spec.batch.minimum))
    return batch[np.minimum(rows, len(batch) - 1)], placed


def answers(
    spec: DetectorSpec,
    placed: Sequence[Placement],
    heads: Tensors | None,
    detections: Tensors | None,
    batch: int = 1,
) -> list[Answer]:
    """Return what the outputs of a run say about each picture; heads alone are finished here.

    Args:
        spec: of the side.
        placed: where each picture lies in the input; a run may have held more.
        heads: what :meth:`Side.heads` gave.
        detections: what :meth:`Side.detections` gave.
        batch: how many images the run held.

    Raises:
        InputError: an output is of another number of images.
    """
    sizes = {} if detections is None else {"detections": len(detections["num_detections"])}
    for name, got in (sizes | {name: len(each) for name, each in (heads or {}).items()}).items():
        if got != batch:
            raise InputError(f"{name} came back for {got} images instead of {batch}.")
    # An overflow shows up as a row that is not finite; numpy need not warn of it as well.
    with np.errstate(over="ignore", invalid="ignore"):
        places = list(placed)
        if spec.output.nms == "none":
            places = [heads_placement(spec.input, each) for each in placed]
        if detections is None and heads is not None:
            detections = finish_heads(heads[_LOGITS], heads[_CODES], spec)
        rows = rows_from_outputs(detections or {}, spec.output.box_format)
    return [
        Answer(
            spec,
            rows[index].in_picture(places[index]),
            {name: head[index : index + 1] for name, head in heads.items()} if heads else None,
            each,
        )
        for index, each in enumerate(placed)
    ]


def score_error(reference: Answer, candidate: Answer) -> float:
    """Return the largest difference of scores among the best pairs of either side's heads.

    They are as many as enter the reference's NMS. Heads of different shapes have none.
    """
    if reference.heads is None or candidate.heads is None:
        return 0.0
    one, other = (
        np.asarray(heads[_LOGITS][0], np.float32) for heads in (reference.heads, candidate.heads)
    )
    if one.shape != other.shape:
        return 0.0
    largest = 0.0
    for source in (one, other):
        chosen = top_candidates(source, reference.spec.output.candidates)
        difference = np.abs(sigmoid(one[chosen]) - sigmoid(other[chosen]))
        largest = max(largest, float(np.nanmax(difference, initial=0.0)))
    return largest
