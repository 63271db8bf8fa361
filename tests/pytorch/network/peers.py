"""effdet's network, whose checkpoints ours must take, and functions that compare both networks."""

from __future__ import annotations

import warnings

import torch

from effdet_deploy.pytorch.network import EfficientDet, get_config
from effdet_deploy.pytorch.network.random_weights import network_input
from effdet_deploy.synthetic import structured_pictures

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import effdet

UNSEEN = 20_000
"""The seed of pictures that were not used when random weights were scaled."""
OUTPUT_TOLERANCE = 1e-4
"""For logits with a spread of 1.5: float32 sums in another order differ by about 1e-5."""


def effdet_twin(network: EfficientDet) -> torch.nn.Module:
    """Return effdet's network with the same config and the same weights, loaded strictly."""
    config = network.config
    twin = effdet.create_model(
        config.name,
        image_size=config.image_size,
        num_classes=config.num_classes,
        pretrained_backbone=False,
    )
    twin.load_state_dict(network.state_dict(), strict=True)
    return twin.eval()


def unseen_images(network: EfficientDet, count: int = 1) -> torch.Tensor:
    """Return normalized pictures ``[count,3,H,W]`` that no network's weights were scaled with."""
    height, width = network.config.image_size
    pictures = structured_pictures(count, height, width, UNSEEN)
    return network_input(torch.from_numpy(pictures), network.config)


def outputs(network: torch.nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Return the class maps of all levels, then the box maps."""
    with torch.no_grad():
        classes, boxes = network(images)
    return [*classes, *boxes]


def largest_difference(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """Return the largest absolute difference of maps with equal shapes; NaN if a map has NaN."""
    assert [each.shape for each in ours] == [each.shape for each in theirs]
    differences = [(a - b).abs().max() for a, b in zip(ours, theirs, strict=True)]
    return float(torch.stack(differences).max())


def smallest_sizes(name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the smallest square that the levels of ``name`` take, and an oblong."""
    side = 2 ** get_config(name).max_level
    return (side, side), (side, side * 3 // 2)
