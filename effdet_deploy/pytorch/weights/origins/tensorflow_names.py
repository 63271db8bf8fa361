"""What automl and the Object Detection API have in common: names in a layer, layout of kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEAVES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "bias": "bias",
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "pointwise_kernel": "weight",
}
"""The last part of a variable's name → the name of the parameter in torch."""
_AXES = {"kernel": (3, 2, 0, 1), "pointwise_kernel": (3, 2, 0, 1), "depthwise_kernel": (2, 3, 0, 1)}


def as_torch(leaf: str, value: NDArray[np.generic]) -> NDArray[np.generic]:
    """Convert a kernel from HWIO (depthwise: HWC1) to OIHW; other values stay as they are."""
    return value.transpose(_AXES[leaf]) if leaf in _AXES and value.ndim == 4 else value


def separable(leaf: str) -> str:
    """Return our layer and parameter for a parameter of a separable convolution."""
    layer = "conv_dw" if leaf == "depthwise_kernel" else "conv_pw"
    return f"{layer}.{LEAVES[leaf]}"
