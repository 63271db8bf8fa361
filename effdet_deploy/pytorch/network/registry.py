"""The 47 named configurations of effdet 0.4.1, and the short names.

Numbers and URLs are those of ``effdet/config/model_config.py`` (rwightman/efficientdet-pytorch,
Apache-2.0); the tests compare every field with the installed effdet.
"""

from __future__ import annotations

import re
from dataclasses import replace

from effdet_deploy.errors import UnknownNameError
from effdet_deploy.pytorch.network.config import SQRT_ASPECT_RATIOS, ModelConfig

_RELEASE = "https://github.com/rwightman/efficientdet-pytorch/releases/download/v0.1/"
_HALF = (0.5, 0.5, 0.5)
_BILINEAR = {"downsample_type": "bilinear", "upsample_type": "bilinear"}

_TF_SCALING = (
    # variant, image side, FPN channels, FPN repeats, head repeats, published file
    ("d0", 512, 64, 3, 3, "tf_efficientdet_d0_34-f153e0cf.pth"),
    ("d1", 640, 88, 4, 3, "tf_efficientdet_d1_40-a30f94af.pth"),
    ("d2", 768, 112, 5, 3, "tf_efficientdet_d2_43-8107aa99.pth"),
    ("d3", 896, 160, 6, 4, "tf_efficientdet_d3_47-0b525f35.pth"),
    ("d4", 1024, 224, 7, 4, "tf_efficientdet_d4_49-f56376d9.pth"),
    ("d5", 1280, 288, 7, 4, "tf_efficientdet_d5_51-c79f9be6.pth"),
    ("d6", 1280, 384, 8, 5, "tf_efficientdet_d6_52-4eda3773.pth"),
)
_ADVPROP_FILES = {
    "d0": "tf_efficientdet_d0_ap-d0cdbd0a.pth",
    "d1": "tf_efficientdet_d1_ap-7721d075.pth",
    "d2": "tf_efficientdet_d2_ap-a2995c19.pth",
    "d3": "tf_efficientdet_d3_ap-e4a2feab.pth",
    "d4": "tf_efficientdet_d4_ap-f601a5fc.pth",
    "d5": "tf_efficientdet_d5_ap-3673ae5d.pth",
}
_LITE_SCALING = (
    # variant, backbone, image side, FPN channels, FPN repeats, head repeats, anchor scale, file
    ("lite0", "lite0", 320, 64, 3, 3, 3.0, "tf_efficientdet_lite0-dfacfc78.pth"),
    ("lite1", "lite1", 384, 88, 4, 3, 3.0, "tf_efficientdet_lite1-6dc7ab30.pth"),
    ("lite2", "lite2", 448, 112, 5, 3, 3.0, "tf_efficientdet_lite2-86c5d55b.pth"),
    ("lite3", "lite3", 512, 160, 6, 4, 4.0, "tf_efficientdet_lite3-506852cb.pth"),
    ("lite3x", "lite3", 640, 200, 6, 4, 3.0, "tf_efficientdet_lite3x-8404c57b.pth"),
    ("lite4", "lite4", 640, 224, 7, 4, 4.0, "tf_efficientdet_lite4-391ddabc.pth"),
)


def _tf_configs() -> list[ModelConfig]:
    """TensorFlow's own D0-D7x, their AdvProp twins, and lite."""
    configs = []
    for variant, side, channels, cells, heads, file in _TF_SCALING:
        config = ModelConfig(
            name=f"tf_efficientdet_{variant}",
            backbone_name=f"tf_efficientnet_b{variant[1:]}",
            image_size=(side, side),
            fpn_channels=channels,
            fpn_cell_repeats=cells,
            box_class_repeats=heads,
            fpn_name="bifpn_sum" if variant == "d6" else "bifpn_fa",
            url=_RELEASE + file,
        )
        configs.append(config)
        if variant in _ADVPROP_FILES:
            configs.append(_advprop(config, _ADVPROP_FILES[variant]))
    d6 = configs[-1]
    configs.append(
        replace(
            d6,
            name="tf_efficientdet_d7",
            image_size=(1536, 1536),
            anchor_scale=5.0,
            url=_RELEASE + "tf_efficientdet_d7_53-6d1d7a95.pth",
        )
    )
    configs.append(
        replace(
            d6,
            name="tf_efficientdet_d7x",
            backbone_name="tf_efficientnet_b7",
            image_size=(1536, 1536),
            max_level=8,
            url=_RELEASE + "tf_efficientdet_d7x-f390b87c.pth",
        )
    )
    return configs


def _advprop(config: ModelConfig, file: str) -> ModelConfig:
    return replace(
        config,
        name=f"{config.name}_ap",
        mean=_HALF,
        std=_HALF,
        fill_color=(0, 0, 0),
        url=_RELEASE + file,
    )


def _lite_configs() -> list[ModelConfig]:
    return [
        ModelConfig(
            name=f"tf_efficientdet_{variant}",
            backbone_name=f"tf_efficientnet_{backbone}",
            image_size=(side, side),
            drop_path_rate=0.0 if variant == "lite0" else 0.2,
            fpn_channels=channels,
            fpn_cell_repeats=cells,
            box_class_repeats=heads,
            anchor_scale=scale,
            fpn_name="bifpn_sum",
            act_type="relu6",
            mean=_HALF,
            std=_HALF,
            fill_color=(128, 128, 128),
            url=_RELEASE + file,
        )
        for variant, backbone, side, channels, cells, heads, scale, file in _LITE_SCALING
    ]


def _torch_configs() -> list[ModelConfig]:
    """The models that were trained, or only defined, in PyTorch."""
    tf_like = ModelConfig("", "", (512, 512), fpn_channels=64, drop_path_rate=0.1)
    lite0 = replace(
        tf_like,
        name="efficientdet_lite0",
        backbone_name="efficientnet_lite0",
        image_size=(384, 384),
        act_type="relu6",
        redundant_bias=False,
        head_bn_level_first=True,
    )
    d0 = replace(
        tf_like,
        name="efficientdet_d0",
        backbone_name="efficientnet_b0",
        pad_type="",
        redundant_bias=False,
        url=_RELEASE + "efficientdet_d0-f3276ba8.pth",
    )
    d1 = replace(
        d0,
        name="efficientdet_d1",
        backbone_name="efficientnet_b1",
        image_size=(640, 640),
        drop_path_rate=0.2,
        fpn_channels=88,
        fpn_cell_repeats=4,
        url=_RELEASE + "efficientdet_d1-bb7e98fe.pth",
    )
    d2 = replace(
        d1,
        name="efficientdet_d2",
        backbone_name="efficientnet_b2",
        image_size=(768, 768),
        fpn_channels=112,
        fpn_cell_repeats=5,
        url="",
    )
    d3 = replace(
        d2,
        name="efficientdet_d3",
        backbone_name="efficientnet_b3",
        image_size=(896, 896),
        fpn_channels=160,
        fpn_cell_repeats=6,
        box_class_repeats=4,
    )
    d4 = replace(
        d3,
        name="efficientdet_d4",
        backbone_name="efficientnet_b4",
        image_size=(1024, 1024),
        fpn_channels=224,
        fpn_cell_repeats=7,
        pad_type="same",
        redundant_bias=True,
    )
    d5 = replace(
        d4,
        name="efficientdet_d5",
        backbone_name="efficientnet_b5",
        image_size=(1280, 1280),
        fpn_channels=288,
    )
    return [lite0, d0, d1, d2, d3, d4, d5, *_quad_configs(d0, d1, d2), *_sqrt_aspect_configs(d0)]


def _quad_configs(d0: ModelConfig, d1: ModelConfig, d2: ModelConfig) -> list[ModelConfig]:
    """Models with effdet's quad FPN."""
    q0 = replace(
        d0,
        name="efficientdet_q0",
        fpn_name="qufpn_fa",
        head_bn_level_first=True,
        url=_RELEASE + "efficientdet_q0-bdf1bdb5.pth",
    )
    q1 = d1.replace(
        {
            "name": "efficientdet_q1",
            "fpn_cell_repeats": 3,
            "fpn_name": "qufpn_fa",
            "head_bn_level_first": True,
            "url": _RELEASE + "efficientdet_q1b-d0612140.pth",
            **_BILINEAR,
        }
    )
    q2 = replace(
        d2,
        name="efficientdet_q2",
        fpn_cell_repeats=4,
        fpn_name="qufpn_fa",
        head_bn_level_first=True,
        url=_RELEASE + "efficientdet_q2-0f7564e5.pth",
    )
    return [q0, q1, q2]


def _sqrt_aspect_configs(d0: ModelConfig) -> list[ModelConfig]:
    """Models whose anchors follow √-based aspect ratios."""
    small = replace(d0, aspect_ratios=SQRT_ASPECT_RATIOS, head_bn_level_first=True, url="")
    large = replace(
        small, image_size=(640, 640), drop_path_rate=0.2, fpn_channels=88, fpn_cell_repeats=4
    )
    full = replace(large, separable_conv=False)
    return [
        *_efficientnet_kin(small, large, full),
        *_residual_configs(full, aspect_ratios=d0.aspect_ratios),
        *_mobile_configs(small, large),
    ]


def _efficientnet_kin(
    small: ModelConfig, large: ModelConfig, full: ModelConfig
) -> list[ModelConfig]:
    """Wide, EdgeTPU and V2 EfficientNets."""
    return [
        small.replace(
            {"name": "efficientdet_w0", "fpn_channels": 80, "feature_location": "depthwise"}
        ),
        replace(
            small,
            name="efficientdet_es",
            backbone_name="efficientnet_es",
            act_type="relu",
            fpn_channels=72,
            separable_conv=False,
        ),
        replace(
            full,
            name="efficientdet_em",
            backbone_name="efficientnet_em",
            act_type="relu",
            fpn_channels=96,
        ),
        large.replace(
            {
                "name": "efficientdetv2_dt",
                "backbone_name": "efficientnetv2_rw_t",
                "image_size": 768,
                "fpn_channels": 128,
                "fpn_cell_repeats": 5,
                "url": _RELEASE + "efficientdetv2_rw_dt_agc-ad8b8c96.pth",
                **_BILINEAR,
            }
        ),
        large.replace(
            {
                "name": "efficientdetv2_ds",
                "backbone_name": "efficientnetv2_rw_s",
                "image_size": 1024,
                "fpn_channels": 256,
                "fpn_cell_repeats": 7,
                "box_class_repeats": 4,
                "url": _RELEASE + "efficientnetv2_rw_ds_agc-cf589293.pth",
                **_BILINEAR,
            }
        ),
    ]


def _residual_configs(
    full: ModelConfig, aspect_ratios: tuple[tuple[float, float], ...]
) -> list[ModelConfig]:
    """ResNets and their cross-stage partial kin; ``aspect_ratios`` are those of resdet50."""
    return [
        replace(
            full,
            name="resdet50",
            backbone_name="resnet50",
            act_type="relu",
            aspect_ratios=aspect_ratios,
            head_bn_level_first=False,
            url=_RELEASE + "resdet50_416-08676892.pth",
        ),
        full.replace(
            {
                "name": "cspresdet50",
                "backbone_name": "cspresnet50",
                "image_size": 768,
                "act_type": "leaky_relu",
                "head_act_type": "silu",
                "url": _RELEASE + "cspresdet50b-386da277.pth",
                **_BILINEAR,
            }
        ),
        replace(full, name="cspresdext50", backbone_name="cspresnext50", act_type="leaky_relu"),
        replace(
            full,
            name="cspresdext50pan",
            backbone_name="cspresnext50",
            act_type="leaky_relu",
            fpn_cell_repeats=3,
            fpn_name="pan_fa",
            url=_RELEASE + "cspresdext50pan-92fdd094.pth",
        ),
        replace(
            full,
            name="cspdarkdet53",
            backbone_name="cspdarknet53",
            act_type="leaky_relu",
            backbone_indices=(3, 4, 5),
        ),
        full.replace(
            {
                "name": "cspdarkdet53m",
                "backbone_name": "cspdarknet53",
                "image_size": 768,
                "act_type": "leaky_relu",
                "head_act_type": "mish",
                "backbone_indices": (3, 4, 5),
                "fpn_channels": 96,
                "fpn_name": "qufpn_fa",
                "url": _RELEASE + "cspdarkdet53m-79062b2d.pth",
                **_BILINEAR,
            }
        ),
    ]


def _mobile_configs(small: ModelConfig, large: ModelConfig) -> list[ModelConfig]:
    """MixNets and MobileNets."""
    return [
        replace(small, name="mixdet_m", backbone_name="mixnet_m"),
        replace(large, name="mixdet_l", backbone_name="mixnet_l"),
        replace(
            small,
            name="mobiledetv2_110d",
            backbone_name="mobilenetv2_110d",
            image_size=(384, 384),
            drop_path_rate=0.05,
            act_type="relu6",
            fpn_channels=48,
        ),
        replace(
            small,
            name="mobiledetv2_120d",
            backbone_name="mobilenetv2_120d",
            act_type="relu6",
            fpn_channels=56,
        ),
        replace(
            small,
            name="mobiledetv3_large",
            backbone_name="mobilenetv3_large_100",
            act_type="hard_swish",
        ),
    ]


_CONFIGS = {config.name: config for config in (*_tf_configs(), *_lite_configs(), *_torch_configs())}
_SHORT_NAME = re.compile(r"(?:d[0-6](?:_ap)?|d7x?|lite\d+x?)$")


def list_models() -> list[str]:
    """Return the names of all configurations, sorted."""
    return sorted(_CONFIGS)


def resolve_name(name: str) -> str:
    """Return the full name of ``name``: ``d2`` → ``tf_efficientdet_d2``, ``q0`` likewise.

    Raises:
        UnknownNameError: there is no such variant; the nearest names are given.
    """
    for candidate in (name, _prefix_of(name) + name):
        if candidate in _CONFIGS:
            return candidate
    short = {full.removeprefix("tf_").removeprefix("efficientdet_") for full in _CONFIGS}
    known = {each for each in short if _is_name(each)} | _CONFIGS.keys()
    raise UnknownNameError("variant", name, sorted(known))


def _is_name(name: str) -> bool:
    return _prefix_of(name) + name in _CONFIGS


def _prefix_of(name: str) -> str:
    """Return what a full name begins with where ``name`` is short."""
    return "tf_efficientdet_" if _SHORT_NAME.match(name) else "efficientdet_"


def get_config(name: str) -> ModelConfig:
    """Return the registered configuration of a full or short name; raises as resolve_name."""
    return _CONFIGS[resolve_name(name)]
