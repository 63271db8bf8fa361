"""ModelConfig: every number and name that shapes an EfficientDet."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from effdet_deploy.artifact.anchors import feature_sizes
from effdet_deploy.artifact.spec import even_octaves
from effdet_deploy.errors import UnknownNameError, UsageError
from effdet_deploy.pytorch.network.topology import FPN_NAMES

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
"""What a max pooling pads with: minus infinity, as TensorFlow and effdet, or 0, as zylo117."""
ACTIVATIONS = (
    *("swish", "silu", "mish", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu"),
    *("hard_swish", "hard_sigmoid", "hard_mish", "sigmoid", "tanh"),
)
"""By timm's names for them."""


@dataclass(frozen=True)
class ModelConfig:
    """One EfficientDet configuration; field names are effdet's wherever it has them.

    Sizes are (height, width) in pixels, ``aspect_ratios`` (width, height) factors, ``mean`` and
    ``std`` on the 0-1 RGB scale, ``fill_color`` the letterbox color in 0-255 RGB.
    ``drop_path_rate`` matters in training only. ``octave_scales`` are even steps where empty;
    ``feature_blocks`` are the (stage, block) behind which the backbone's feature maps leave, the
    last of ``backbone_indices``' stages where empty.

    Raises:
        UsageError: a value is out of its range; the range is named.
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
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    fill_color: tuple[int, int, int] = IMAGENET_FILL
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
        _require_choice("downsample_type", self.downsample_type, RESAMPLE_MODES)
        _require_choice("upsample_type", self.upsample_type, ("nearest", "bilinear"))
        _require_choice("pool_padding", self.pool_padding, POOL_PADDINGS)
        for act_type in filter(None, (self.act_type, self.head_act_type)):
            _require_choice("activation", act_type, ACTIVATIONS)
        if self.octave_scales and len(self.octave_scales) != self.num_scales:
            raise UsageError(
                f"octave_scales must have num_scales entries, {self.num_scales}, not "
                f"{len(self.octave_scales)}.",
                "Give both, or leave octave_scales out for even steps.",
            )
        scales = (self.anchor_scale, *self.octave_scales)
        positive = (*scales, *self.std, *itertools.chain(*self.aspect_ratios))
        if not self.aspect_ratios or min(positive) <= 0:
            raise UsageError(
                "aspect_ratios must not be empty; they, anchor_scale, octave_scales and std must "
                "be above zero.",
                "Leave these fields out to keep the variant's own.",
            )
        for channel in self.fill_color:
            _require_range("fill_color", channel, 0, 255)
        if not 0 < self.norm_eps < 1:
            raise UsageError(
                f"norm_eps must be between 0 and 1, not {self.norm_eps}.",
                "Leave it out to keep the variant's own.",
            )
        if not 0 < len(self.backbone_indices) <= self.num_levels:
            raise UsageError(
                f"{len(self.backbone_indices)} backbone features do not fit {self.num_levels} "
                f"levels ({self.min_level}-{self.max_level}).",
                "Name at least one of backbone_indices, and no more than there are levels.",
            )
        rising = sorted({each for each in self.backbone_indices if each >= 0})
        if list(self.backbone_indices) != rising:
            raise UsageError(
                f"backbone_indices must count up from 0, not {list(self.backbone_indices)}.",
                "Leave them out to keep the variant's own.",
            )

    @property
    def octaves(self) -> tuple[float, ...]:
        """The octave scales of each place's anchors; even steps where none are given."""
        return self.octave_scales or even_octaves(self.num_scales)

    @property
    def num_levels(self) -> int:
        """How many pyramid levels there are."""
        return self.max_level - self.min_level + 1

    @property
    def num_anchors(self) -> int:
        """Anchors at each location of a feature map."""
        return self.num_scales * len(self.aspect_ratios)

    @property
    def feature_sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each level's feature map, fine to coarse; halves are rounded up."""
        return tuple(feature_sizes(*self.image_size, self.max_level)[self.min_level :])

    def replace(self, overrides: Mapping[str, Any]) -> Self:
        """Return a copy with some fields changed.

        Lists become tuples, one number for ``image_size`` means a square, and one for an aspect
        ratio r what effdet takes it for: a width of √r and a height of 1/√r. Where ``mean`` is
        given and ``fill_color`` is not, it follows, as effdet's ``fill_color='mean'`` does.

        Raises:
            UnknownNameError: a field that does not exist.
            UsageError: a value of another type or out of range.
        """
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        for name in overrides:
            if name not in fields:
                raise UnknownNameError("config field", name, fields)
        coerced = {name: _coerce(name, value, fields[name]) for name, value in overrides.items()}
        if "mean" in coerced and "fill_color" not in coerced:
            fill = (min(255, max(0, round(255 * each))) for each in coerced["mean"])
            coerced["fill_color"] = tuple(fill)
        return dataclasses.replace(self, **coerced)

    def overrides_of(self, base: ModelConfig) -> dict[str, Any]:
        """Return the fields in which this config differs from ``base``."""
        return {
            each.name: getattr(self, each.name)
            for each in dataclasses.fields(self)
            if getattr(self, each.name) != getattr(base, each.name)
        }


def _require_range(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UsageError(
            f"{field} must be from {low} to {high}, not {value}.", "Choose a value in that range."
        )


def _require_choice(kind: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UnknownNameError(kind, value, known)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _coerce(field: str, value: Any, current: Any) -> Any:
    """Bring a JSON value to the type that ``current`` has."""
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
        fixed_length = field in {"image_size", "mean", "std", "fill_color"}
        fits = len(value) == len(current) or not fixed_length
        kinds = int if current and isinstance(current[0], int) else int | float
        if fits and all(_is_number(each) and isinstance(each, kinds) for each in value):
            return tuple(value)
    if isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is type(current) and not isinstance(value, tuple):
        return value
    raise UsageError(
        f"The config field '{field}' takes a value like {current!r}, not {value!r}.",
        "See the fields in effdet_deploy.pytorch.network.ModelConfig.",
    )
