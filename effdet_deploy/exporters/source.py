"""Where the model comes from: a variant and weights, or a module in memory."""

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
"""Pictures that a module is run on before the export; at its end all are."""


def load_source(
    variant_or_model: str | nn.Module | None, options: ExportOptions, progress: Progress
) -> LoadedModel:
    """Build the network with its weights.

    Raises:
        UsageError: a model in memory together with options that would change it.
        WeightsError: the weights are unusable or of another model.
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
        progress(f"the weights are {loaded.source}")
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
    """Run a module in memory beside our copy of it, before anything is made from the copy.

    Args:
        source: what was loaded; weights of a file have no module to run.
        spec: of the artifact that was asked for.
        pictures: that the artifact will be verified on; none are made ones.
        progress: told of it.

    Returns:
        ``source`` with a sentence for each thing that the user should know.

    Raises:
        UsageError: the module gives something else than its weights in our network; the layer
            where it begins is named.
    """
    if source.given is None:
        return source
    from effdet_deploy.pytorch.departures import first_departure, hooks_in
    from effdet_deploy.pytorch.reference import EagerReference, GivenReference

    progress("running the module as it was given")
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
            f"The module in memory is not what its configuration describes: {what}. "
            f"{where or hooked}".strip(),
            "Undo the change before the export, or build the module from a configuration that "
            "says it.",
        )
    notes = list(source.notes)
    if hooks:
        notes.append(
            f"The module has {listed}: on {len(images)} pictures that changes nothing, and the "
            "artifact does not have it."
        )
    rows, of_bench = spec.output.max_detections, source.max_detections
    if of_bench is not None and rows != ExportOptions.max_detections:
        because = "the bench gives as many" if rows == of_bench else f"the bench gives {of_bench}"
        notes.append(f"The artifact gives {rows} rows; {because}.")
    return dataclasses.replace(source, notes=tuple(notes))


def _what_differs(report: ParityReport) -> str:
    """Say in a clause how a module differs from our copy of it; empty where it does not."""
    for each in report.outputs:
        if each.status == "failed":
            allowed = each.allowed or 0.0
            return (
                f"its {each.name} differ by {each.errors.largest:.2g} from those of its weights in "
                f"the network of that configuration, which round by {allowed:.2g}"
            )
    found = report.detections
    if found is not None and found.status == "failed":
        return (
            f"of {found.candidate_count} detections of its bench {found.matched} are what effdet's "
            f"NMS finds in its own heads ({found.reason})"
        )
    return ""


def _address(variant: str | None, options: ExportOptions) -> str:
    """Return where weights would be downloaded from; without the query, which may hold a key."""
    from effdet_deploy.pytorch.network import get_config
    from effdet_deploy.pytorch.weights.loading import PRETRAINED, published_url

    if "://" in options.weights:
        return urlunsplit((*urlsplit(options.weights)[:3], "", ""))
    if variant is None or options.weights != PRETRAINED:
        return ""
    return published_url(get_config(variant))


def _tell_download(progress: Progress, address: str, done: int, total: int | None) -> None:
    size = f", {total / 1e6:.1f} MB" if total else ""
    progress(f"downloading {address}{size}: {done / 1e6:.1f} MB there")


def specification_of(
    source: LoadedModel, options: ExportOptions, labels: Labels | None
) -> DetectorSpec:
    """Describe the artifact that ``options`` ask for; the graph's own facts come later.

    ``labels`` name its classes; where there are none, those of the weights do. It gives as many
    rows as the bench in memory does, where no other number was asked for. How many boxes enter NMS
    is settled by :func:`effdet_deploy.exporters.candidates.settle_candidates`.

    Raises:
        DataError: the labels do not fit its classes.
        UsageError: the bench lowers scores, which no graph can do.
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
            "there are boxes and cannot be put into a graph.",
            "Pass nms='none' (--nms none), which is finished in numpy, or set soft_nms of the "
            "bench to False and see that its detections are still good.",
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
    """Return how many rows come out, and how many boxes enter NMS before pictures settle it."""
    rows = options.max_detections
    if source.max_detections is not None and rows == ExportOptions.max_detections:
        rows = source.max_detections
    candidates = first_candidates(options, rows)
    if source.given is not None and source.given.bench is not None and options.nms != "plugin":
        # A bench looks at so many; more would find what it does not.
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

    Candidates are clamped to the (anchor, class) pairs there are, detections to the candidates:
    a small image with few classes has fewer than the defaults ask for. ``fields`` are further
    fields of :class:`DetectorSpec`.

    Raises:
        UsageError: what is asked for is of color pictures, and the network's are gray or RGBA.
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
        # As JSON reads it back: lists for tuples, so that a spec equals its own round trip.
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
    """Describe the image input; raises UsageError where color is asked of gray or RGBA."""
    if config.in_chans == 1 and channel_order == "bgr":
        raise UsageError("Gray pictures have no channel order.", "Leave --channel-order out.")
    if config.in_chans != 3 and frame_size is not None:
        raise UsageError(
            f"DeepStream gives color pictures, and the network takes {config.in_chans} channels.",
            "Leave --target deepstream out, or train the network on RGB.",
        )
    height, width = config.image_size
    trained_on = cast("ChannelOrder", config.trained_on)
    # The config has the network's order, the spec RGB's.
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
