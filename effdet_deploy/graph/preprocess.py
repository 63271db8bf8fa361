"""Preprocess: what stands between the graph's image input and the network."""

import torch
from torch import Tensor, nn

from effdet_deploy.spec import InputSpec


class Preprocess(nn.Module):
    """Brings images to the network's layout and zero mean.

    Scale (1/std) and channel order live in the stem convolution, where
    :func:`effdet_deploy.graph.folding.fold_input` puts them. The mean cannot follow: the stem pads
    with zeros after normalisation.
    """

    mean: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.channels_last = spec.kind == "uint8"
        self.centre = spec.kind != "normalized"
        mean = spec.mean if spec.channel_order == "rgb" else spec.mean[::-1]
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N,H,W,3]`` uint8, or ``[N,3,H,W]`` float32, to ``[N,3,H,W]`` float32."""
        # Nothing may touch uint8 before the cast: TensorRT takes no other operation on it.
        images = images.to(torch.float32)
        if self.channels_last:
            images = images.permute(0, 3, 1, 2)
        return images - self.mean if self.centre else images
