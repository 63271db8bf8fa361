"""Backbones: timm's feature extractors, adapted where they cannot be scripted or exported.

TorchScript reads class annotations as objects, hence no ``from __future__ import annotations``.
"""

from collections import OrderedDict
from typing import Any

import timm
from timm.models import FeatureInfo
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn

from effdet_deploy.errors import UnknownNameError, UsageError
from effdet_deploy.pytorch.network.config import ModelConfig


def create_backbone(config: ModelConfig) -> Any:
    """Create a timm network that maps images to the feature maps of ``config.backbone_indices``.

    Raises:
        UnknownNameError: timm has no model with this name.
        UsageError: the backbone lacks a feature map of ``backbone_indices``, or
            ``feature_location`` is set but the backbone has no expansions.
    """
    if not timm.is_model(config.backbone_name):
        raise UnknownNameError("timm backbone", config.backbone_name, timm.list_models())
    try:
        backbone = timm.create_model(
            config.backbone_name,
            features_only=True,
            out_indices=config.backbone_indices,
            pretrained=False,
            in_chans=config.in_chans,
            drop_path_rate=config.drop_path_rate,
        )
    except (IndexError, AssertionError) as error:
        raise UsageError(
            f"The backbone '{config.backbone_name}' has no feature maps "
            f"{list(config.backbone_indices)}.",
            "Count backbone_indices from 0, or leave them out to keep the variant's own.",
        ) from error
    if config.feature_blocks:
        return BlockFeatures(backbone, config.feature_blocks)
    # To get features from inside blocks, timm uses hooks, which cannot be scripted or copied.
    return ExpansionFeatures(backbone) if config.feature_location else backbone


class BlockFeatures(nn.Module):
    """An EfficientNet whose feature maps come from named blocks instead of whole stages.

    It is built from timm's extractor, with the same attribute names; blocks after the last feature
    map are left out.

    Raises:
        UsageError: the backbone lacks one of these blocks.
    """

    def __init__(self, features: Any, places: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        stages = [list(stage) for stage in getattr(features, "blocks", ())]
        if any(stage >= len(stages) or block >= len(stages[stage]) for stage, block in places):
            raise UsageError(
                f"The backbone has no blocks {[list(each) for each in places]}.",
                "Count stages and blocks from 0, or leave feature_blocks out.",
            )
        self.conv_stem = features.conv_stem
        self.bn1 = features.bn1
        last_stage, last_block = places[-1]
        kept = [*stages[:last_stage], stages[last_stage][: last_block + 1]]
        self.blocks = nn.ModuleList(nn.ModuleList(stage) for stage in kept)
        # Blocks are numbered over all stages, as ``forward`` counts them.
        starts = [sum(map(len, kept[:stage])) for stage in range(len(kept))]
        self.places = [starts[stage] + block for stage, block in places]
        channels = {
            int(each["stage"]) - 1: each["num_chs"] for each in features.feature_info.get_dicts()
        }
        taken = [
            {"num_chs": channels[stage], "reduction": 2 ** (index + 3), "module": f"blocks.{stage}"}
            for index, (stage, _) in enumerate(places)
        ]
        self.feature_info = FeatureInfo(taken, tuple(range(len(taken))))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map normalized images ``[N,3,H,W]`` to feature maps, fine to coarse."""
        x = self.bn1(self.conv_stem(x))
        features: list[Tensor] = []
        count = 0
        for stage in self.blocks:
            for block in stage:  # type: ignore[attr-defined]
                x = block(x)
                if count in self.places:
                    features.append(x)
                count += 1
        return features


class ExpansionBlock(nn.Sequential):
    """A timm block of EfficientNet that also returns its expansion: the input of its projection.

    The block first expands a feature map to more channels; its projection reduces them again. It
    holds the block's own layers under their own names, in the order in which they run.

    Raises:
        UsageError: the block is not one of timm's EfficientNet blocks.
    """

    def __init__(self, block: nn.Module) -> None:
        if not isinstance(block, InvertedResidual | DepthwiseSeparableConv):
            raise UsageError(
                "feature_location takes features from inside EfficientNet blocks, but this "
                f"backbone consists of {type(block).__name__}.",
                "Leave feature_location empty for this backbone.",
            )
        super().__init__(OrderedDict(block.named_children()))
        info = block.feature_info("expansion")
        self.projection = [name for name, _ in block.named_children()].index(info["module"])
        self.expanded_channels: int = info["num_chs"]
        self.has_skip: bool = block.has_skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``[N,Cin,H,W]`` to the expanded features ``[N,Ce,h,w]`` and to the block's output."""
        shortcut = x
        expansion = x
        for i, layer in enumerate(self):
            if i == self.projection:
                expansion = x
            x = layer(x)
        return expansion, x + shortcut if self.has_skip else x


class ExpansionFeatures(nn.Module):
    """An EfficientNet whose feature maps are the expansions in the last block of their stages.

    It is built from timm's extractor with the same attribute names, so that its ``state_dict`` has
    timm's names.
    """

    def __init__(self, features: Any) -> None:
        super().__init__()
        self.conv_stem = features.conv_stem
        self.bn1 = features.bn1
        stages = [[ExpansionBlock(block) for block in stage] for stage in features.blocks]
        self.blocks = nn.ModuleList(nn.ModuleList(stage) for stage in stages)
        taken = features.feature_info.get_dicts()
        # timm counts the stem as stage 0.
        self.stages = [int(each["stage"]) - 1 for each in taken]
        for each, stage in zip(taken, self.stages, strict=True):
            each["num_chs"] = stages[stage][-1].expanded_channels
        self.feature_info = FeatureInfo(taken, tuple(range(len(taken))))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map normalized images ``[N,3,H,W]`` to feature maps, fine to coarse."""
        x = self.bn1(self.conv_stem(x))
        features: list[Tensor] = []
        for i, stage in enumerate(self.blocks):
            expansion = x
            for block in stage:  # type: ignore[attr-defined]
                expansion, x = block(x)
            if i in self.stages:
                features.append(expansion)
        return features
