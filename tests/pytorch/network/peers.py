"""effdet, the peer whose checkpoints our model must take, and how the two are compared."""

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
"""A seed of pictures that no network was conditioned on."""
OUTPUT_TOLERANCE = 1e-4
"""On logits that spread by 1.5: float32 sums in another order differ by about 1e-5."""


def effdet_twin(network: EfficientDet) -> torch.nn.Module:
    """effdet's network of the same config, with the same weights, loaded strictly."""
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
    """Normalised pictures ``[count,3,H,W]`` that the network has not been conditioned on."""
    height, width = network.config.image_size
    pictures = structured_pictures(count, height, width, UNSEEN)
    return network_input(torch.from_numpy(pictures), network.config)


def outputs(network: torch.nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Class maps, then box maps, of every level."""
    with torch.no_grad():
        classes, boxes = network(images)
    return [*classes, *boxes]


def largest_difference(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    """The largest absolute difference over maps of equal shapes; NaN where either has one."""
    assert [each.shape for each in ours] == [each.shape for each in theirs]
    differences = [(a - b).abs().max() for a, b in zip(ours, theirs, strict=True)]
    return float(torch.stack(differences).max())


def smallest_sizes(name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """The smallest square that the levels of ``name`` take, and an oblong."""
    side = 2 ** get_config(name).max_level
    return (side, side), (side, side * 3 // 2)
