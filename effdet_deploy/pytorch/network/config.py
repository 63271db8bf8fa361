"""ModelConfig: all numbers and names that define an EfficientDet."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, get_args

from effdet_deploy.artifact.anchors import feature_sizes
from effdet_deploy.artifact.spec import ChannelOrder, Interpolation, ResizeRule, even_octaves
from effdet_deploy.errors import UnknownNameError, UsageError
from effdet_deploy.pytorch.network.topology import FPN_NAMES, NASFPN_LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_FILL = (124, 116, 104)
TF_ASPECT_RATIOS = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))
MAX_IMAGE_SIDE = 4096
"""Largest accepted image side in pixels; D7x is trained at 1536."""
RESAMPLE_MODES = ("max", "avg", "bilinear", "nearest")
POOL_PADDINGS = ("lowest", "zero")
"""Padding of max pooling: minus infinity as in TensorFlow and effdet, or 0 as in zylo117."""
ACTIVATIONS = (
    *("swish", "silu", "mish", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu"),
    *("hard_swish", "hard_sigmoid", "hard_mish", "sigmoid", "tanh"),
)
"""The activations, by their names in timm."""
_LARGEST_NUMBER = 1e9
"""The largest absolute value of a number in a config."""
_BY_CHANNEL = ("mean", "std", "fill_color")


@dataclass(frozen=True)
class ModelConfig:
    """One EfficientDet configuration; field names are effdet's where effdet has the field.

    Sizes are (height, width) in pixels, ``aspect_ratios`` are (width, height) factors. These fields
    describe the pictures of the training: ``in_chans`` is the number of channels (1 gray, 3 RGB, 4
    RGBA), and ``trained_on`` their order. ``resize`` is the rule and ``interpolation`` the filter
    for bringing pictures to size. ``mean`` and ``std`` (on the 0-1 scale) and the color
    ``fill_color`` (0-255) have one value per channel, in the order ``trained_on``.
    ``drop_path_rate`` only matters in training. Empty ``octave_scales`` mean even steps.
    ``feature_blocks`` names, as (stage, block), the blocks that give the backbone's feature maps;
    if it is empty, the last blocks of the stages in ``backbone_indices`` give them.

    Raises:
        UsageError: a value is out of its range; the message names the range.
    """

    name: str
    backbone_name: str
    image_size: tuple[int, int]
    num_classes: int = 90
    drop_path_rate: float = 0.2
    feature_location: str = ""
    backbone_indices: tuple[int, ...] = (2, 3, 4)
    feature_blocks: tuple[tuple[int, int], ...] = ()
    min_level: int = 3
    max_level: int = 7
    num_scales: int = 3
    octave_scales: tuple[float, ...] = ()
    aspect_ratios: tuple[tuple[float, float], ...] = TF_ASPECT_RATIOS
    anchor_scale: float = 4.0
    pad_type: str = "same"
    act_type: str = "swish"
    head_act_type: str = ""
    norm_eps: float = 1e-3
    norm_momentum: float = 0.01
    box_class_repeats: int = 3
    fpn_name: str = "bifpn_fa"
    fpn_cell_repeats: int = 3
    fpn_channels: int = 88
    separable_conv: bool = True
    apply_resample_bn: bool = True
    conv_bn_relu_pattern: bool = False
    downsample_type: str = "max"
    pool_padding: str = "lowest"
    upsample_type: str = "nearest"
    redundant_bias: bool = True
    head_bn_level_first: bool = False
    in_chans: int = 3
    trained_on: str = "rgb"
    resize: str = "letterbox"
    interpolation: str = "antialias"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    fill_color: tuple[int, ...] = IMAGENET_FILL
    url: str = ""

    def __post_init__(self) -> None:
        _require_range("num_classes", self.num_classes, 1, 100_000)
        _require_range("min_level", self.min_level, 1, self.max_level)
        _require_range("max_level", self.max_level, self.min_level, 10)
        _require_range("fpn_channels", self.fpn_channels, 1, 4096)
        _require_range("fpn_cell_repeats", self.fpn_cell_repeats, 1, 64)
        _require_range("box_class_repeats", self.box_class_repeats, 0, 64)
        _require_range("num_scales", self.num_scales, 1, 64)
        for side in self.image_size:
            _require_range("image_size", side, 2**self.max_level, MAX_IMAGE_SIDE)
        _require_choice("FPN", self.fpn_name, FPN_NAMES)
        if self.fpn_name.startswith("nasfpn") and self.num_levels != NASFPN_LEVELS:
            raise UsageError(
                f"{self.fpn_name} has {NASFPN_LEVELS} levels, not {self.num_levels} "
                f"({self.min_level}-{self.max_level}).",
                "Choose fitting values of min_level and max_level, or another fpn_name.",
            )
        _require_choice("downsample_type", self.downsample_type, RESAMPLE_MODES)
        _require_choice("upsample_type", self.upsample_type, ("nearest", "bilinear"))
        _require_choice("pool_padding", self.pool_padding, POOL_PADDINGS)
        for act_type in filter(None, (self.act_type, self.head_act_type)):
            _require_choice("activation", act_type, ACTIVATIONS)
        if self.octave_scales and len(self.octave_scales) != self.num_scales:
            raise UsageError(
                f"octave_scales must have {self.num_scales} entries (num_scales), not "
                f"{len(self.octave_scales)}.",
                "Set both fields, or leave octave_scales out for even steps.",
            )
        scales = (self.anchor_scale, *self.octave_scales)
        positive = (*scales, *self.std, *itertools.chain(*self.aspect_ratios))
        if not self.aspect_ratios or min(positive) <= 0:
            raise UsageError(
                "aspect_ratios must not be empty; its values, and those of anchor_scale, "
                "octave_scales and std, must be above zero.",
                "Leave these fields out to keep the variant's own.",
            )
        self._require_preprocessing()
        if not 0 < self.norm_eps < 1:
            raise UsageError(
                f"norm_eps must be between 0 and 1, not {self.norm_eps}.",
                "Leave norm_eps out to keep the variant's own.",
            )
        if not 0 < len(self.backbone_indices) <= self.num_levels:
            raise UsageError(
                f"{len(self.backbone_indices)} backbone features do not fit {self.num_levels} "
                f"levels ({self.min_level}-{self.max_level}).",
                f"Give at least one and at most {self.num_levels} backbone_indices.",
            )
        rising = sorted({each for each in self.backbone_indices if each >= 0})
        if list(self.backbone_indices) != rising:
            raise UsageError(
                f"backbone_indices must count up from 0, not {list(self.backbone_indices)}.",
                "Leave backbone_indices out to keep the variant's own.",
            )

    def _require_preprocessing(self) -> None:
        _require_choice("channel order", self.trained_on, get_args(ChannelOrder))
        _require_choice("resize rule", self.resize, get_args(ResizeRule))
        _require_choice("interpolation", self.interpolation, get_args(Interpolation))
        if self.in_chans not in (1, 3, 4):
            raise UsageError(
                f"in_chans must be 1 (gray), 3 (RGB) or 4 (RGBA), not {self.in_chans}.",
                "Set in_chans to 1, 3 or 4; other pictures are not supported.",
            )
        if self.in_chans == 1 and self.trained_on == "bgr":
            raise UsageError("Gray pictures have no channel order.", "Leave trained_on out.")
        for field in _BY_CHANNEL:
            if len(getattr(self, field)) != self.in_chans:
                raise UsageError(
                    f"{field} must have one value per channel, {self.in_chans} in all, not "
                    f"{len(getattr(self, field))}.",
                    "Give one value for all channels, or one per channel.",
                )
        for channel in self.fill_color:
            _require_range("fill_color", channel, 0, 255)

    @property
    def octaves(self) -> tuple[float, ...]:
        """The octave scales of the anchors; even steps if none are given."""
        return self.octave_scales or even_octaves(self.num_scales)

    @property
    def num_levels(self) -> int:
        """The number of pyramid levels."""
        return self.max_level - self.min_level + 1

    @property
    def num_anchors(self) -> int:
        """The number of anchors at one location of a feature map."""
        return self.num_scales * len(self.aspect_ratios)

    @property
    def feature_sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of the levels' feature maps, fine to coarse; halves are rounded up."""
        return tuple(feature_sizes(*self.image_size, self.max_level)[self.min_level :])

    def replace(self, overrides: Mapping[str, Any]) -> Self:
        """Return a copy with some fields changed.

        Lists become tuples. One number for ``image_size`` means a square, and one for ``mean``,
        ``std`` and ``fill_color`` means all channels. One number r for an aspect ratio means, as in
        effdet, a width of √r and a height of 1/√r. If ``mean`` is given without ``fill_color``, the
        fill color becomes the mean, as with ``fill_color="mean"``.

        Raises:
            UnknownNameError: a field does not exist.
            UsageError: a value has the wrong type or is out of range.
        """
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        for name in overrides:
            if name not in fields:
                raise UnknownNameError("config field", name, fields)
        given = {**_recast(fields, overrides), **overrides}
        channels = given.get("in_chans", self.in_chans)
        for name in _BY_CHANNEL:
            # A number of channels such as 3.0 is refused below, by its type.
            if _is_number(given.get(name)) and channels in (1, 3, 4):
                given[name] = (given[name],) * int(channels)
        coerced = {
            name: _coerce(name, value, fields[name])
            for name, value in given.items()
            if (name, value) != ("fill_color", "mean")
        }
        if given["fill_color"] == "mean" if "fill_color" in overrides else "mean" in overrides:
            fill = (round(min(255, max(0, 255 * each))) for each in coerced.get("mean", self.mean))
            coerced["fill_color"] = tuple(fill)
        return dataclasses.replace(self, **coerced)

    def overrides_of(self, base: ModelConfig) -> dict[str, Any]:
        """Return the fields to give to ``base.replace`` to get this config.

        They are the fields that differ. If the mean differs, ``fill_color`` is among them, because
        ``replace`` would otherwise set it to the mean.
        """
        names = [each.name for each in dataclasses.fields(self)]
        changed = {name for name in names if getattr(self, name) != getattr(base, name)}
        changed |= {"fill_color"} if "mean" in changed else set()
        return {name: getattr(self, name) for name in names if name in changed}


def _recast(fields: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return mean, std and fill for another number of channels.

    A single or a fourth channel gets the average of the three colors.
    """
    channels = overrides.get("in_chans", fields["in_chans"])
    if channels == fields["in_chans"] or channels not in (1, 3, 4):
        return {}
    found: dict[str, Any] = {}
    for name in _BY_CHANNEL:
        colors = (fields[name] * 3)[:3]
        average = round(sum(colors) / 3, 0 if name == "fill_color" else 6)
        average = type(colors[0])(average)
        found[name] = {1: (average,), 3: colors, 4: (*colors, average)}[channels]
    return found


def _require_range(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UsageError(
            f"{field} must be from {low} to {high}, not {value}.", "Choose a value in this range."
        )


def _require_choice(kind: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UnknownNameError(kind, value, known)


def _is_number(value: Any) -> bool:
    """Return whether a value is a number from -1e9 to 1e9 (:data:`_LARGEST_NUMBER`); NaN is not."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and -_LARGEST_NUMBER <= value <= _LARGEST_NUMBER


def _coerce(field: str, value: Any, current: Any) -> Any:
    """Convert a JSON value to the type of ``current``."""
    if field == "image_size" and isinstance(value, int):
        value = (value, value)
    if field in ("aspect_ratios", "feature_blocks") and isinstance(value, list | tuple):
        pairs = [
            (math.sqrt(each), 1 / math.sqrt(each)) if _is_number(each) and each > 0 else each
            for each in value
        ]
        if all(
            isinstance(pair, list | tuple) and len(pair) == 2 and all(map(_is_number, pair))
            for pair in pairs
        ):
            return tuple(map(tuple, pairs))
    elif isinstance(current, tuple) and isinstance(value, list | tuple):
        fits = len(value) == len(current) or field != "image_size"
        kinds = int if current and isinstance(current[0], int) else int | float
        if fits and all(_is_number(each) and isinstance(each, kinds) for each in value):
            return tuple(value)
    if isinstance(current, float) and _is_number(value):
        return float(value)
    if type(value) is type(current) and not isinstance(value, tuple | float):
        return value
    raise UsageError(
        f"The config field '{field}' takes a value like {current!r}, not {value!r}.",
        "See the fields in effdet_deploy.pytorch.network.ModelConfig.",
    )
