"""Preprocess: the module between the graph's image input and the network."""

import torch
from torch import Tensor, nn

from effdet_deploy.artifact.spec import InputSpec
from effdet_deploy.pytorch.graph.resizing import FrameResize


class Preprocess(nn.Module):
    """Converts images to the network's layout and subtracts the mean.

    Scale (1/std) and channel order are in the weights of the network's first convolution, where
    :func:`effdet_deploy.pytorch.graph.folding.fold_input` puts them. The mean cannot be there,
    because this convolution pads normalized images with zeros.
    """

    mean: Tensor
    free: Tensor
    fill: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        self.channels_last = spec.kind == "uint8" and spec.source_size is None
        self.center = spec.kind != "normalized"
        mean = 255 * torch.tensor(spec.mean)[spec.passed_channels]
        fill = torch.tensor(spec.fill)[spec.passed_channels]
        self.frames: nn.Module = nn.Identity()
        # The mean is a whole row of pixels: runtimes broadcast along the last axis slowly.
        row = mean.repeat(1, 1, spec.width, 1)
        mean = row if self.channels_last else mean.view(1, -1, 1, 1)
        if spec.source_size is not None:
            resize = FrameResize(spec)
            # Frames are padded with 0, which the network must see as the fill color.
            mean = mean - resize.padded(fill)
            self.frames = resize
        self.register_buffer("mean", mean, persistent=False)
        # Only float255 input has a frame area: DeepStream pads frames with black. The pixels
        # outside this area, where ``free`` is true, get the fill color instead.
        self.refills = spec.frame_area is not None
        top, left, bottom, right = spec.frame_area or (0, 0, 0, 0)
        free = torch.ones(1, 1, spec.height, spec.width, dtype=torch.bool)
        free[..., top:bottom, left:right] = False
        self.register_buffer("free", free, persistent=False)
        self.register_buffer("fill", fill.view(1, -1, 1, 1).to(torch.float32), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N,H,W,C]`` uint8, or ``[N,C,H,W]`` float32, to ``[N,C,H,W]`` float32.

        If the graph resizes frames, they are ``[N,h,w,C]`` uint8.
        """
        # No operation may precede the cast: TensorRT allows no other operation on uint8.
        images = self.frames(images.to(torch.float32))
        if self.refills:
            images = torch.where(self.free, self.fill, images)
        if self.center:
            images = images - self.mean
        # The transpose comes last: a runtime that computes with channels last can remove it.
        return images.permute(0, 3, 1, 2) if self.channels_last else images
