"""The model to export: a variant and weights, or a module in memory."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit, urlunsplit

from effdet_deploy.artifact.classes import class_specs
from effdet_deploy.artifact.spec import (
    AnchorSpec,
    DetectorSpec,
    InputSpec,
    OutputSpec,
    SoftNmsSpec,
    channel_places,
)
from effdet_deploy.detection.pictures import verification_images
from effdet_deploy.errors import UsageError
from effdet_deploy.exporters.candidates import first_candidates
from effdet_deploy.exporters.options import DEFAULT_NMS_STEPS, ExportOptions
from effdet_deploy.parity.comparison import verify
from effdet_deploy.parity.tolerances import TOLERANCES

if TYPE_CHECKING:
    from torch import nn

    from effdet_deploy.artifact.labels import Labels
    from effdet_deploy.artifact.spec import (
        ChannelOrder,
        ClassSpec,
        InputKind,
        Interpolation,
        ResizeRule,
    )
    from effdet_deploy.detection.pictures import Pictures
    from effdet_deploy.parity.verdict import ParityReport
    from effdet_deploy.progress import Progress
    from effdet_deploy.pytorch.network.config import ModelConfig
    from effdet_deploy.pytorch.weights.loading import LoadedModel

_RUN_AS_GIVEN = 2
"""How many pictures a module is run on before the export; at the end it is run on all."""


def load_source(
    variant_or_model: str | nn.Module | None, options: ExportOptions, progress: Progress
) -> LoadedModel:
    """Build the network and load its weights.

    Raises:
        UsageError: options were given that cannot change a model in memory.
        WeightsError: the weights are unusable or belong to another model.
    """
    from effdet_deploy.pytorch.weights.loading import build_model, loaded_module

    if variant_or_model is None or isinstance(variant_or_model, str):
        progress("loading the weights")
        loaded = build_model(
            variant_or_model,
            options.weights,
            num_classes=options.num_classes,
            image_size=options.image_size,
            overrides=options.overrides,
            preprocessing=options.preprocessing,
            seed=options.seed,
            origin=options.origin,
            progress=partial(_tell_download, progress, _address(variant_or_model, options)),
        )
        progress(f"preparing the network with {loaded.source}")
        return loaded
    changes = (options.num_classes, options.image_size, options.overrides or None)
    if options.weights != "pretrained" or any(each is not None for each in changes):
        raise UsageError(
            "weights, num_classes, image_size and overrides cannot change a model in memory.",
            "Create the model with them, or pass a variant's name and weights.",
        )
    return loaded_module(variant_or_model, options.preprocessing)


def run_as_given(
    source: LoadedModel, spec: DetectorSpec, pictures: Pictures, progress: Progress
) -> LoadedModel:
    """Run a module in memory and our copy of it, before the copy is exported.

    Args:
        source: the loaded model; if it comes from a file, there is no module to run.
        spec: the spec of the artifact.
        pictures: the pictures for the verification; generated ones if empty.
        progress: called when this stage begins.

    Returns:
        ``source`` with sentences that the user should read.

    Raises:
        UsageError: the module computes something else than its weights in our network; the
            message names the layer where the difference begins.
    """
    if source.given is None:
        return source
    from effdet_deploy.pytorch.departures import first_departure, hooks_in
    from effdet_deploy.pytorch.reference import EagerReference, GivenReference

    progress("running the module in memory")
    images = verification_images(spec.input, pictures)[:_RUN_AS_GIVEN]
    given = GivenReference(source.given, source.model, spec)
    copied = EagerReference(source.model, spec)
    copied.spec = given.spec
    report = verify(given, copied, images, TOLERANCES["fp32"])
    hooks = hooks_in(source)
    listed = ", ".join(f"a {' and a '.join(each.kinds)} on {each.name}" for each in hooks)
    what = _what_differs(report)
    if what:
        where = first_departure(source, spec.input, images[0])
        hooked = "" if where or not hooks else f"It has {listed}."
        raise UsageError(
            f"The module in memory does not compute what its configuration describes: {what}. "
            f"{where or hooked}".strip(),
            "Undo the change before the export, or build the module from a configuration that "
            "describes the change.",
        )
    notes = list(source.notes)
    if hooks:
        notes.append(
            f"The module has {listed}: on {len(images)} pictures they change nothing, and the "
            "artifact does not have them."
        )
    rows, of_bench = spec.output.max_detections, source.max_detections
    if of_bench is not None and rows != ExportOptions.max_detections:
        because = "like the bench" if rows == of_bench else f"but the bench gives {of_bench}"
        notes.append(f"The artifact gives up to {rows} detections, {because}.")
    return dataclasses.replace(source, notes=tuple(notes))


def _what_differs(report: ParityReport) -> str:
    """Say in a clause how a module differs from our copy; empty if it does not differ."""
    for each in report.outputs:
        if each.status == "failed":
            allowed = each.allowed or 0.0
            return (
                f"its {each.name} differ by {each.errors.largest:.2g} from what its weights give "
                f"in the described network, and rounding explains only {allowed:.2g}"
            )
    found = report.detections
    if found is not None and found.status == "failed":
        return (
            f"of {found.candidate_count} detections of its bench, {found.matched} are those that "
            f"effdet's NMS finds in its own heads ({found.reason})"
        )
    return ""


def _address(variant: str | None, options: ExportOptions) -> str:
    """Return the address that weights are downloaded from, without its query: it may hold a key."""
    from effdet_deploy.pytorch.network import get_config
    from effdet_deploy.pytorch.weights.loading import PRETRAINED, published_url

    if "://" in options.weights:
        return urlunsplit((*urlsplit(options.weights)[:3], "", ""))
    if variant is None or options.weights != PRETRAINED:
        return ""
    return published_url(get_config(variant))


def _tell_download(progress: Progress, address: str, done: int, total: int | None) -> None:
    size = f", {total / 1e6:.1f} MB" if total else ""
    progress(f"downloading {address}{size}: {done / 1e6:.1f} MB received")


def specification_of(
    source: LoadedModel, options: ExportOptions, labels: Labels | None
) -> DetectorSpec:
    """Describe the artifact that ``options`` ask for; facts about the graph are added later.

    ``labels`` name its classes; without labels, the weights do. The number of rows is that of the
    effdet bench (a wrapper with NMS) around a model in memory, unless the options give another
    number. How many boxes enter NMS is settled by
    :func:`effdet_deploy.exporters.candidates.settle_candidates`.

    Raises:
        DataError: the labels do not fit the classes.
        UsageError: the bench uses soft-NMS, which no graph can do.
    """
    number = source.config.num_classes
    said: tuple[str, ...] = ()
    if labels is None:
        classes = class_specs(number, source.labels, source.category_ids)
    else:
        classes, said = labels.classes(number, options.labels_by)
    if source.soft_nms and options.nms != "none":
        raise UsageError(
            "The bench in memory uses soft NMS (soft_nms is True), which takes as many steps as "
            "there are boxes and cannot be part of a graph.",
            "Pass nms='none' (--nms none), so that Python does the soft NMS; or set soft_nms of "
            "the bench to False and check that its detections are still good.",
        )
    rows, candidates = _rows_and_candidates(source, options)
    return describe(
        source.config,
        source.base_config,
        classes,
        OutputSpec(
            nms=options.nms,
            score_threshold=options.score_threshold,
            iou_threshold=options.iou_threshold,
            candidates=candidates,
            max_detections=rows,
            nms_steps=options.nms_steps or DEFAULT_NMS_STEPS,
            box_format=options.box_format,
            class_agnostic=options.class_agnostic,
            soft_nms=SoftNmsSpec() if source.soft_nms or options.soft_nms else None,
        ),
        input_kind=options.graph_input,
        frame_size=options.frame_size,
        source_size=options.source_size,
        channel_order=options.channel_order,
        precision=options.precision_spec,
        batch=options.batch,
        weights_sha256=source.weights_sha256,
        parameters=sum(each.numel() for each in source.model.parameters()),
        command=options.command,
        origin=source.origin,
        assumed=(*source.assumed, *said),
    )


def _rows_and_candidates(source: LoadedModel, options: ExportOptions) -> tuple[int, int]:
    """Return how many rows come out, and how many boxes enter NMS at first."""
    rows = options.max_detections
    if source.max_detections is not None and rows == ExportOptions.max_detections:
        rows = source.max_detections
    candidates = first_candidates(options, rows)
    if source.given is not None and source.given.bench is not None and options.nms != "plugin":
        # The bench considers this number of boxes; with more, the artifact would find other ones.
        points = int(source.given.bench.max_detection_points)
        candidates = candidates if options.candidates is not None else min(candidates, points)
    return rows, candidates


def describe(
    config: ModelConfig,
    base: ModelConfig,
    classes: tuple[ClassSpec, ...],
    output: OutputSpec,
    *,
    input_kind: InputKind = "uint8",
    channel_order: ChannelOrder = "rgb",
    frame_size: tuple[int, int] | None = None,
    source_size: tuple[int, int] | None = None,
    **fields: Any,
) -> DetectorSpec:
    """Return the spec of a model; ``base`` is the variant's registered config.

    Candidates are limited to the number of (anchor, class) pairs, and detections to the number of
    candidates: a small image with few classes has fewer than the defaults. ``fields`` are further
    fields of :class:`DetectorSpec`.

    Raises:
        UsageError: an option is only for color pictures, but the network takes gray or RGBA ones.
    """
    pairs = config.num_classes * config.num_anchors * sum(h * w for h, w in config.feature_sizes)
    candidates = min(output.candidates, pairs)
    return DetectorSpec(
        variant=base.name,
        input=_input_of(config, input_kind, channel_order, frame_size, source_size),
        anchors=AnchorSpec(
            config.min_level,
            config.max_level,
            config.octaves,
            config.aspect_ratios,
            config.anchor_scale,
        ),
        classes=classes,
        output=dataclasses.replace(
            output, candidates=candidates, max_detections=min(output.max_detections, candidates)
        ),
        # JSON reads tuples back as lists. Lists from the start make a spec equal to itself after
        # writing and reading.
        overrides=json.loads(json.dumps(config.overrides_of(base))),
        **fields,
    )


def _input_of(
    config: ModelConfig,
    kind: InputKind,
    channel_order: ChannelOrder,
    frame_size: tuple[int, int] | None,
    source_size: tuple[int, int] | None,
) -> InputSpec:
    """Describe the image input; raises UsageError for an RGB option of a gray or RGBA network."""
    if config.in_chans == 1 and channel_order == "bgr":
        raise UsageError("Gray pictures have no channel order.", "Leave --channel-order out.")
    if config.in_chans != 3 and frame_size is not None:
        raise UsageError(
            f"DeepStream gives color pictures, but the network takes {config.in_chans} channels.",
            "Leave --target deepstream out, or train the network on RGB.",
        )
    height, width = config.image_size
    trained_on = cast("ChannelOrder", config.trained_on)
    # The config's values are in the network's order, the spec's in RGB order.
    places = channel_places(trained_on, config.in_chans)
    return InputSpec(
        height,
        width,
        kind,
        channel_order,
        mean=tuple(config.mean[place] for place in places),
        std=tuple(config.std[place] for place in places),
        fill=tuple(config.fill_color[place] for place in places),
        trained_on=trained_on,
        resize=cast("ResizeRule", config.resize),
        interpolation=cast("Interpolation", config.interpolation),
        frame_size=frame_size,
        source_size=source_size,
    )
