"""The TensorFlow Object Detection API's ``pipeline.config``, with the settings of a training.

Fields and their defaults are those of ``object_detection/protos``: ssd.proto, image_resizer.proto,
anchor_generator's multiscale_anchor_generator.proto and faster_rcnn_box_coder.proto.
"""

from __future__ import annotations

import re
from typing import Any

from effdet_deploy.artifact.textproto import read_text_proto
from effdet_deploy.errors import WeightsError
from effdet_deploy.pytorch.weights.origins.settings import Settings, SettingsFile

SCALES, ASPECTS = 3, 3
"""How many octave scales and aspect ratios a place has, as :mod:`tf_object_detection` assumes."""
_BACKBONE = re.compile(r"ssd_efficientnet-b([0-5])_bifpn_keras")
"""B6 is the backbone of both D6 and D7."""
_CODES = {"y_scale": 10.0, "x_scale": 10.0, "height_scale": 5.0, "width_scale": 5.0}
"""The factors of the box codes, with their defaults."""
_SSD: dict[str, Any] = {
    "num_classes": int,
    "image_resizer": {
        "keep_aspect_ratio_resizer": {
            "min_dimension": int,
            "max_dimension": int,
            "pad_to_max_dimension": bool,
            "per_channel_pad_value": float,
        },
        "fixed_shape_resizer": {"height": int, "width": int},
    },
    "feature_extractor": {
        "type": str,
        "bifpn": dict.fromkeys(("min_level", "max_level", "num_iterations", "num_filters"), int),
    },
    "box_coder": {"faster_rcnn_box_coder": dict.fromkeys(_CODES, float)},
    "anchor_generator": {
        "multiscale_anchor_generator": {
            "anchor_scale": float,
            "aspect_ratios": float,
            "scales_per_octave": int,
        }
    },
}


def read_pipeline_config(source: str, text: str) -> Settings:
    """Read the settings of an API training; raises as :class:`SettingsFile` says."""
    config = read_text_proto(text, {"model": {"ssd": _SSD}})
    ssd = _only(_only(config, "model"), "ssd")
    if not ssd:
        raise ValueError(
            "it describes no SSD model, but the Object Detection API describes every EfficientDet "
            "as an SSD model"
        )
    coder = _only(_only(ssd, "box_coder"), "faster_rcnn_box_coder")
    codes = [_last(coder, name, default) for name, default in _CODES.items()]
    anchors = _only(_only(ssd, "anchor_generator"), "multiscale_anchor_generator")
    aspects, scales = anchors.get("aspect_ratios", []), _last(anchors, "scales_per_octave", 2)
    found = f"{scales} octave scales and {len(aspects)} aspect ratios"
    for what, holds in (
        (f"scales its box codes by {', '.join(f'{each:g}' for each in codes)}", set(codes) == {1}),
        (
            f"has {found} instead of {SCALES} and {ASPECTS}",
            (scales, len(aspects)) == (SCALES, ASPECTS),
        ),
    ):
        if not holds:
            raise WeightsError(
                f"According to '{source}', the network {what}, which is not supported.",
                "Export it with the Object Detection API itself, or train from one of that API's "
                "EfficientDet configurations.",
            )
    extractor = _only(ssd, "feature_extractor")
    bifpn = _only(extractor, "bifpn")
    fields: dict[str, Any] = {
        "num_scales": scales,
        "aspect_ratios": tuple(aspects),
        "anchor_scale": _last(anchors, "anchor_scale", 4.0),
    }
    for ours, message, theirs in (
        ("num_classes", ssd, "num_classes"),
        ("min_level", bifpn, "min_level"),
        ("max_level", bifpn, "max_level"),
        ("fpn_cell_repeats", bifpn, "num_iterations"),
        ("fpn_channels", bifpn, "num_filters"),
    ):
        if message.get(theirs):
            fields[ours] = message[theirs][-1]
    resized, assumed = _resizing(_only(ssd, "image_resizer"))
    backbone = _BACKBONE.fullmatch(_last(extractor, "type", ""))
    variant = f"d{backbone[1]}" if backbone else None
    return Settings(source, fields | resized, variant, assumed=assumed)


def _resizing(resizer: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the fields that the resizer decides, and sentences on how our model differs."""
    fixed = _only(resizer, "fixed_shape_resizer")
    if fixed:
        size = (_last(fixed, "height", 300), _last(fixed, "width", 300))
        return {"image_size": size, "resize": "stretch"}, ()
    kept = _only(resizer, "keep_aspect_ratio_resizer")
    if not kept:
        return {}, ("The image size is the variant's.",)
    shortest, longest = _last(kept, "min_dimension", 600), _last(kept, "max_dimension", 1024)
    fields: dict[str, Any] = {}
    assumed: tuple[str, ...] = ()
    if fill := kept["per_channel_pad_value"]:
        fields["fill_color"] = tuple(round(each) for each in fill)
    if not _last(kept, "pad_to_max_dimension", False):
        assumed = ("The network was trained on pictures of any size; this model takes one size.",)
    elif shortest != longest:
        sides = f"a short side of {shortest} and a long side of at most {longest}"
        here = f"in this model the long side is always {longest}"
        assumed = (f"The network was trained on pictures with {sides}; {here}.",)
    return {"image_size": (longest, longest), **fields}, assumed


def _only(message: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the message ``name`` inside another; an empty one if it is absent."""
    found: list[dict[str, Any]] = message.get(name) or [{}]
    return found[-1]


def _last(message: dict[str, Any], name: str, default: Any) -> Any:
    """Return a scalar; if there are several, the last, as protobuf does."""
    return (message.get(name) or [default])[-1]


SETTINGS = SettingsFile(("pipeline.config",), read_pipeline_config)
