"""Parts for effdet's own pipeline around a network that runs outside torch; needs only torch."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Maps = Callable[[NDArray[Any]], Sequence[NDArray[Any]]]


class Normalize(nn.Module):
    """Normalizes a batch as effdet's loader does before the network."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 ``[N,H,W,3]`` to float32 ``[N,3,H,W]``."""
        return images.permute(0, 3, 1, 2).float().sub_(self.mean).div_(self.std)


class Half(nn.Module):
    """A network that computes in a 16-bit type, with inputs and outputs in float32."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.network = copy.deepcopy(network).to(dtype)

    def forward(self, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Run the network."""
        classes, boxes = self.network(pixels.to(self.dtype))
        return [each.float() for each in classes], [each.float() for each in boxes]


class Foreign(nn.Module):
    """A network outside torch with effdet's outputs: two lists, each with one tensor per level."""

    def __init__(self, run: Maps) -> None:
        super().__init__()
        self.run = run

    def forward(self, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Map normalized images to class and box outputs, level by level."""
        maps = [torch.from_numpy(each) for each in self.run(pixels.numpy())]
        return maps[: len(maps) // 2], maps[len(maps) // 2 :]


def onnxruntime_session(path: Path | str, threads: int) -> Any:
    """Load an ONNX file in ONNX Runtime with its default options."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(str(path), settings, providers=providers)


def onnxruntime_maps(path: Path | str, threads: int) -> Maps:
    """Return a function that runs an ONNX file in ONNX Runtime."""
    session = onnxruntime_session(path, threads)
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})
