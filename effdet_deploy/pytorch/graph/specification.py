"""From a model to the DetectorSpec that its artifacts carry."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, cast

from effdet_deploy.artifact.spec import (
    AnchorSpec,
    ClassSpec,
    DetectorSpec,
    InputSpec,
    OutputSpec,
    channel_places,
)

if TYPE_CHECKING:
    from effdet_deploy.artifact.spec import ChannelOrder, InputKind, Interpolation, ResizeRule
    from effdet_deploy.pytorch.network.config import ModelConfig


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
    """
    height, width = config.image_size
    trained_on = cast("ChannelOrder", config.trained_on)
    # The config has the network's order, the spec RGB's.
    places = channel_places(trained_on, config.in_chans)
    pairs = config.num_classes * config.num_anchors * sum(h * w for h, w in config.feature_sizes)
    candidates = min(output.candidates, pairs)
    return DetectorSpec(
        variant=base.name,
        input=InputSpec(
            height,
            width,
            input_kind,
            channel_order,
            mean=tuple(config.mean[place] for place in places),
            std=tuple(config.std[place] for place in places),
            fill=tuple(config.fill_color[place] for place in places),
            trained_on=trained_on,
            resize=cast("ResizeRule", config.resize),
            interpolation=cast("Interpolation", config.interpolation),
            frame_size=frame_size,
            source_size=source_size,
        ),
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
