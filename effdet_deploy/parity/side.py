"""One side of a comparison, reference or candidate, and its answers for pictures."""

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
    """A model that gives raw heads, detections or both for a batch of graph inputs.

    Its ``spec`` describes its inputs, and how heads become detections if it gives only heads: by
    exact greedy NMS in numpy, among as many boxes as the spec lets enter NMS.
    """

    @property
    def spec(self) -> DetectorSpec:
        """The description of inputs and outputs."""
        ...

    @property
    def precision(self) -> str:
        """The precision of the computation, which may be higher than the one in the file."""
        ...

    def heads(self, batch: NDArray[Any]) -> Tensors | None:
        """Return :data:`.HEAD_OUTPUTS`, or None if they are not available."""
        ...

    def heads64(self, batch: NDArray[Any]) -> Tensors | None:
        """Return the heads computed in float64, or None; they show the network's own rounding."""
        ...

    def effects16(
        self, batch: NDArray[Any], kept: Collection[str]
    ) -> tuple[Tensors, Tensors, Tensors] | None:
        """Return by how much FP16 changes the heads of a network, or None.

        The three results are the changes if only weights are rounded; if values that are only
        moved are rounded too; and if all values are rounded. Nodes named in ``kept`` stay FP32.
        """
        ...

    def detections(self, batch: NDArray[Any]) -> Tensors | None:
        """Return the four detection outputs, or None if the model only gives heads."""
        ...


@dataclass(frozen=True, eq=False)
class RuntimeSide:
    """An exported model.

    Attributes:
        spec: the spec of the artifact.
        whole: the runtime that gives detections; None if no runtime here can run the model's NMS.
        raw: the runtime that gives raw heads: the model itself, or a copy with heads as outputs.
    """

    spec: DetectorSpec
    whole: Runtime | None = None
    raw: Runtime | None = None

    @property
    def precision(self) -> str:
        """The precision in which the model's runtime computes."""
        runtime = self.raw or self.whole
        return self.spec.precision.kind if runtime is None else runtime.precision

    def heads(self, batch: NDArray[Any]) -> Tensors | None:
        """Return the raw heads if they are available."""
        if self.raw is None:
            return None
        outputs = run_images(self.raw, batch)
        return {name: outputs[name] for name in HEAD_OUTPUTS}

    def heads64(self, _batch: NDArray[Any]) -> None:
        """Return None: a file computes in the precision that it states."""

    def effects16(self, _batch: NDArray[Any], _kept: Collection[str]) -> None:
        """Return None: only the network itself can show the effects of FP16."""

    def detections(self, batch: NDArray[Any]) -> Tensors | None:
        """Return the model's own detections."""
        return None if self.whole is None else run_images(self.whole, batch)


def side_of(runtime: Runtime) -> RuntimeSide:
    """Make a side of a loaded model, with the outputs that the model has."""
    shows_heads = runtime.spec.output.nms == "none"
    return RuntimeSide(
        runtime.spec, None if shows_heads else runtime, runtime if shows_heads else None
    )


def open_side(path: Path, stack: ExitStack, **settings: Any) -> RuntimeSide:
    """Load an exported model, with its raw heads if they are available; ``stack`` closes it.

    Heads of an ONNX file with NMS need the ``onnx`` package. Without that package, and in files
    that another program made, the heads stay unknown.

    Args:
        path: the model file.
        stack: closes the runtimes at its end.
        settings: arguments of :func:`effdet_deploy.runtimes.load_runtime`.
    """
    side = side_of(stack.enter_context(closing(load_runtime(path, **settings))))
    if side.whole is not None and side.whole.backend in ("onnxruntime", "openvino"):
        with suppress(ImportError, ModelFileError):
            raw = open_heads(path, side.spec, stack, **settings)
            return RuntimeSide(side.spec, side.whole, raw)
    return side


def open_heads(path: Path, spec: DetectorSpec, stack: ExitStack, **settings: Any) -> Runtime:
    """Load a copy of an ONNX file whose outputs include the raw heads; ``stack`` closes it.

    Raises:
        ModelFileError: the graph has no head nodes with the names that our exporter gives.
    """
    from effdet_deploy.onnxgraph.raw_heads import with_heads

    copy = stack.enter_context(with_heads(path, spec))
    return stack.enter_context(closing(load_runtime(copy, **settings)))


def open_export(path: Path, spec: DetectorSpec, stack: ExitStack, **settings: Any) -> RuntimeSide:
    """Load an ONNX file of ours with its raw heads; ``stack`` closes it.

    If a graph ends in a plugin, only its raw heads can be run; numpy makes detections of them.

    Raises:
        ModelFileError: the graph has no head nodes with the names that our exporter gives.
    """
    raw, whole = open_heads(path, spec, stack, **settings), None
    if spec.output.nms not in ("none", "plugin"):
        whole = stack.enter_context(closing(load_runtime(path, **settings)))
    return RuntimeSide(spec, whole, raw)


@dataclass(frozen=True, eq=False)
class Answer:
    """The results of one side for one picture.

    Attributes:
        spec: the spec of the side.
        rows: detections, boxes in pixels of the picture, unclipped.
        heads: ``class_logits`` ``[1,A,C]`` and ``box_regression`` ``[1,A,4]``, or None.
        placed: where the picture lies in the network's input.
        expected: the heads with FP16 weights, if an FP16 artifact is compared with them.
    """

    spec: DetectorSpec
    rows: Rows
    heads: Tensors | None
    placed: Placement
    expected: Tensors | None = None

    @cached_property
    def nms_inputs(self) -> Rows | None:
        """The boxes that entered NMS, in pixels of the picture; None if heads are unknown."""
        if self.heads is None:
            return None
        with np.errstate(over="ignore", invalid="ignore"):
            rows = nms_inputs(self.heads[_LOGITS][0], self.heads[_CODES][0], self.spec)
        return rows.in_picture(heads_placement(self.spec.input, self.placed))


def reach_of(answer: Answer, floor: float = 0.0) -> int:
    """Return how many NMS inputs a side needs for the rows that it keeps; 0 if unknown."""
    inputs, rows = answer.nms_inputs, answer.rows.above(floor)
    if inputs is None or not len(rows):
        return 0
    # The side's own scores may come from another rounding of the sigmoid.
    return int(np.count_nonzero(inputs.scores >= rows.scores.min() - _SAME_SCORE))


def ask(side: Side, pictures: Pictures, *, swap_channels: bool = False) -> list[Answer]:
    """Run a side once on pictures uint8 ``[h,w,C]``, RGB unless the model takes other channels.

    Args:
        side: the model to run.
        pictures: at most the number of pictures in the model's largest batch.
        swap_channels: swap red and blue in the pictures first.

    Raises:
        InputError: the model cannot be run, or does not return a result for every image.
    """
    batch, placed = graph_input(side.spec, pictures, swap_channels=swap_channels)
    return answers(side.spec, placed, side.heads(batch), side.detections(batch), len(batch))


def graph_input(
    spec: DetectorSpec, pictures: Pictures, *, swap_channels: bool = False
) -> tuple[NDArray[Any], list[Placement]]:
    """Prepare a batch of graph inputs, and return where the pictures lie in it.

    If there are fewer pictures than the smallest batch, the last one is repeated.
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
    """Turn the outputs of a run into one answer per picture; numpy makes detections of raw heads.

    Args:
        spec: the spec of the side.
        placed: where the pictures lie in the input; the run's batch may be larger.
        heads: the result of :meth:`Side.heads`.
        detections: the result of :meth:`Side.detections`.
        batch: the batch size of the run.

    Raises:
        InputError: an output does not have ``batch`` images.
    """
    sizes = {} if detections is None else {"detections": len(detections["num_detections"])}
    for name, got in (sizes | {name: len(each) for name, each in (heads or {}).items()}).items():
        if got != batch:
            raise InputError(f"The output {name} has {got} images instead of {batch}.")
    # An overflow appears as a row that is not finite, so numpy need not warn too.
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
    """Return the largest difference of scores among the best pairs of both sides' heads.

    A pair is an anchor with a class; the number of pairs is that of the boxes that enter the
    reference's NMS. The result is 0 for heads of different shapes.
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
