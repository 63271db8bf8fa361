"""Random weights with meaningful outputs: seeded, and adjusted to pictures with structure.

After initialization, all logits of an EfficientDet agree in their first five digits, so scores are
nearly equal and a comparison of two networks proves nothing. Here BatchNorm gets the statistics of
a dozen pictures, and the predict layers are scaled so that the best scores reach 0.99.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from effdet_deploy.pytorch.network.blocks import last_conv
from effdet_deploy.pytorch.network.efficientdet import EfficientDet
from effdet_deploy.synthetic import structured_pictures

if TYPE_CHECKING:
    from effdet_deploy.pytorch.network.config import ModelConfig

LOGIT_MEAN = -3.0
"""Mean of the class logits over the pictures to which weights are adjusted."""
LOGIT_SPREAD = 1.5
"""Standard deviation of the class logits over the pictures to which weights are adjusted."""
BOX_SPREAD = 0.4
"""Standard deviation of the box codes; larger codes make the decoder's unclipped ``exp`` large."""
PICTURES = 12
"""The number of pictures: with two, the coarsest level would take statistics of a few pixels."""
NORM_SHIFT = 0.5
NORM_SCALE = (0.3, 0.5)
"""Mean of the BatchNorm shifts, and range of their scales. With shifts around 0, inputs of an
activation lie around its bend, and over a hundred layers differences grow until the logits of one
picture spread by 0.5 and those of another by 200. With scales around 1 differences still grow: in
FP16, lite2's box codes then have a signal-to-noise ratio of 29 dB, but 47 dB with these values;
those of trained detectors have 53 to 69 dB. With shifts much larger than the scales, less of the
picture reaches the outputs, because padding is zero."""
MAX_SIDE = 512
"""The largest side of these pictures: larger pictures would only take more time."""


def randomize(model: EfficientDet, seed: int = 0) -> None:
    """Give ``model`` seeded random weights with which scores and boxes vary with the picture.

    The result depends on ``seed``, the configuration and the machine's arithmetic, but not on the
    number of threads, the model's weights or the state of torch's random generator.
    """
    config = model.config
    shrink = min(1.0, MAX_SIDE / max(config.image_size))
    # The aspect ratio is kept if the levels allow it.
    height, width = (max(2**config.max_level, round(side * shrink)) for side in config.image_size)
    twin = model
    if (height, width) != tuple(config.image_size):
        # Layers draw initial values from torch's own generator, which belongs to the caller.
        with torch.random.fork_rng(devices=()):
            twin = EfficientDet(config.replace({"image_size": (height, width)}))
    pictures = torch.from_numpy(structured_pictures(PICTURES, height, width, seed, config.in_chans))
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        # The order of floating-point sums follows the number of threads.
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        _draw_parameters(twin, torch.Generator().manual_seed(seed))
        heads = _set_batch_norm_statistics(twin, network_input(pictures, config))
        _scale_predict(twin.class_net.predict, heads[0], LOGIT_MEAN, LOGIT_SPREAD)
        _scale_predict(twin.box_net.predict, heads[1], 0.0, BOX_SPREAD)
    if twin is not model:
        model.load_state_dict(twin.state_dict())


def network_input(pictures: Tensor, config: ModelConfig) -> Tensor:
    """Map pictures uint8 ``[N,H,W,C]`` to the network's input, float32 ``[N,C,H,W]``."""
    mean = torch.tensor(config.mean).view(-1, 1, 1)
    std = torch.tensor(config.std).view(-1, 1, 1)
    return (pictures.permute(0, 3, 1, 2).float() / 255 - mean) / std


def _draw_parameters(model: nn.Module, generator: torch.Generator) -> None:
    """Draw all parameters, and avoid values that hide mistakes, such as 0 or 1."""
    for module in model.modules():
        is_norm = isinstance(module, nn.BatchNorm2d)
        for name, parameter in module.named_parameters(recurse=False):
            if is_norm and name == "weight":
                parameter.uniform_(*NORM_SCALE, generator=generator)
            elif is_norm:
                parameter.normal_(NORM_SHIFT, 0.2, generator=generator)
            elif name == "edge_weights":
                parameter.uniform_(0.3, 1.5, generator=generator)
            elif parameter.dim() > 1:
                std = math.sqrt(1 / parameter[0].numel())
                parameter.normal_(0, std, generator=generator)
            else:
                parameter.normal_(0, 0.1, generator=generator)


def _set_batch_norm_statistics(
    model: EfficientDet, pictures: Tensor
) -> tuple[list[Tensor], list[Tensor]]:
    """Store the statistics of ``pictures`` in every BatchNorm; return the network's outputs.

    All pictures are one batch, so that layers see what they will see in evaluation.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    # Only the norms are in training mode: drop path and dropout stay off.
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = 1.0
    outputs: tuple[list[Tensor], list[Tensor]] = model(pictures)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
    return outputs


def _scale_predict(predict: nn.Module, outputs: list[Tensor], mean: float, spread: float) -> None:
    """Scale the last convolution so that every output channel has about the mean ``mean``.

    ``outputs`` are the levels' ``[N,C,h,w]`` before scaling. All levels count equally in the mean;
    the standard deviation from this mean, over all channels and levels, becomes ``spread``.
    """
    conv: Any = last_conv(predict)
    center = torch.stack([level.mean(dim=(0, 2, 3)) for level in outputs]).mean(dim=0)
    deviations = torch.stack(
        [(level - center.view(1, -1, 1, 1)).square().mean() for level in outputs]
    )
    factor = spread / deviations.mean().sqrt()
    conv.weight.mul_(factor)
    conv.bias.copy_((conv.bias - center) * factor + mean)
