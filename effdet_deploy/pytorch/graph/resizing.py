"""Resizing frames of a fixed size to the network's size inside the graph.

A bilinear resize by a fixed ratio is a strided convolution. With n input pixels, m output pixels
and their greatest common divisor g, the weights repeat every q = m/g outputs and move on by p = n/g
inputs: one axis is a convolution with q filters and stride p, whose output channels are then
interleaved. At a border, Pillow uses the part of a filter inside the image, divided by its sum.
"""

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import NDArray
from torch import Tensor, nn

from effdet_deploy.artifact.placement import place
from effdet_deploy.artifact.resampling import axis_weights, begins_with_rows
from effdet_deploy.artifact.spec import InputSpec, Interpolation

_DEAR = 500e6
"""A resize with more multiplications is reported to the user; D0's network has five times as
many."""
_NEAR = 16
"""A cheaper frame size is searched up to this many pixels away."""
_PILLOW_ONE = 1 << 22
"""Pillow's weights are multiples of 1 over this number; float32 holds them exactly."""


class AxisResize(nn.Module):
    """Resizes one axis of images ``[N,1,rows,columns]``; columns hold interleaved channels.

    Args:
        source: the number of pixels along the axis before the resize.
        target: the number of pixels along the axis after the resize.
        interpolation: the filter.
        channels: how many numbers a pixel has along this axis; 1 unless ``along_rows``.
        along_rows: resize along the rows, which changes the number of columns; else along the
            columns.
    """

    filters: Tensor
    scale: Tensor

    def __init__(
        self,
        source: int,
        target: int,
        interpolation: Interpolation,
        channels: int,
        along_rows: bool,
    ) -> None:
        super().__init__()
        common = math.gcd(source, target)
        self.period, self.phases = source // common, target // common
        self.groups = common
        weights, first = _phase_weights(self.period, self.phases, interpolation)
        if interpolation == "antialias":
            weights = np.floor(weights * _PILLOW_ONE + 0.5) / _PILLOW_ONE
        self.width = channels * target
        self.along_rows = along_rows
        self.stride = channels * self.period
        last = self.period * (common - 1) + first + weights.shape[1]
        self.before, self.after = channels * -first, channels * max(0, last - source)
        scale = _border_scale(weights, first, self.period, source, common)
        # Every channel of q output pixels has its own filter, which reads only this channel.
        filters = np.zeros((self.phases, channels, weights.shape[1], channels))
        for channel in range(channels):
            filters[:, channel, :, channel] = weights
        filters = filters.reshape(self.phases * channels, 1, -1, 1)
        column = torch.from_numpy(scale.repeat(channels)).float().view(1, 1, -1, 1)
        kernel = torch.from_numpy(filters).float()
        swap = (0, 1, 3, 2) if along_rows else (0, 1, 2, 3)
        self.register_buffer("filters", kernel.permute(swap).contiguous(), persistent=False)
        self.register_buffer("scale", column.permute(swap).contiguous(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Resize one axis of float32 ``[N,1,rows,columns]``, without rounding."""
        rows, columns = images.shape[2:]
        if self.along_rows:
            padded = F.pad(images, (self.before, self.after, 0, 0))
            maps = F.conv2d(padded, self.filters, stride=(1, self.stride))[..., : self.groups]
            mixed = maps.permute(0, 2, 3, 1).reshape(-1, 1, rows, self.width)
        else:
            padded = F.pad(images, (0, 0, self.before, self.after))
            maps = F.conv2d(padded, self.filters, stride=(self.stride, 1))[:, :, : self.groups]
            mixed = maps.permute(0, 2, 1, 3).reshape(-1, 1, self.width, columns)
        return mixed * self.scale


def _phase_weights(
    period: int, phases: int, interpolation: Interpolation
) -> tuple[NDArray[np.float64], int]:
    """Return the filters ``[phases,taps]`` of the first ``phases`` outputs, away from borders.

    The second value is the pixel that the first tap reads; it is not above 0, so it may lie before
    the image.
    """
    around = -(-2 * max(period, phases) // period)
    weights = axis_weights((2 * around + 1) * period, (2 * around + 1) * phases, interpolation)
    middle = weights[around * phases : (around + 1) * phases]
    (used,) = np.nonzero(middle.any(axis=0))
    return middle[:, used[0] : used[-1] + 1], int(used[0]) - around * period


def _border_scale(
    weights: NDArray[np.float64], first: int, period: int, source: int, groups: int
) -> NDArray[np.float64]:
    """Return for every output the factor that makes up for taps of its filter outside the image.

    It is 1 divided by the share of the filter's sum that lies inside the image.
    """
    pixels = np.arange(groups)[:, None] * period + first + np.arange(weights.shape[1])
    inside = (pixels >= 0) & (pixels < source)
    part = np.where(inside[:, None, :], weights, 0).sum(axis=2) / weights.sum(axis=1)
    return (1 / part).reshape(-1)


class FrameResize(nn.Module):
    """Resizes frames as ``spec`` says, and pads them to the size of the network's input.

    As in Pillow, the filter ``antialias`` rounds to whole levels after each of the two axes; as in
    OpenCV, other filters round once at the end.
    """

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        frame = spec.taken_size
        placed = place(spec, *frame)
        self.height, self.width = placed.content
        left, top = map(int, placed.offset)
        self.padding = [
            left,
            spec.width - self.width - left,
            top,
            spec.height - self.height - top,
        ]
        self.rounds_between = spec.interpolation == "antialias"
        self.channels = spec.channels
        axes = [
            AxisResize(frame[0], self.height, spec.interpolation, 1, along_rows=False),
            AxisResize(frame[1], self.width, spec.interpolation, spec.channels, along_rows=True),
        ]
        if begins_with_rows(frame, placed.content):
            axes.reverse()
        self.first, self.second = axes

    def padded(self, color: Tensor) -> Tensor:
        """Return ``color`` ``[C]`` at the padding and 0 elsewhere, in a shape that broadcasts.

        Returns:
            float32 ``[1,C,H,W]``; an axis along which the value does not change has length 1.
        """
        free = F.pad(torch.zeros(1, 1, self.height, self.width), self.padding, value=1.0)
        left, right, top, bottom = self.padding
        if not left + right:
            free = free[..., :1]
        if not top + bottom:
            free = free[..., :1, :]
        return free * color.float().view(1, -1, 1, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames ``[N,h,w,C]`` float32 to ``[N,C,H,W]``, whole levels, padded with 0."""
        maps = self.first(frames.flatten(2).unsqueeze(1))
        if self.rounds_between:
            maps = torch.floor(maps + 0.5)
        levels = torch.floor(self.second(maps) + 0.5)
        pixels = levels.reshape(-1, self.height, self.width, self.channels)
        return F.pad(pixels.permute(0, 3, 1, 2), self.padding)


class FrameBoxes(nn.Module):
    """Maps yxyx boxes from network pixels to frame pixels, without clipping."""

    offset: Tensor
    shrink: Tensor

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        placed = place(spec, *spec.taken_size)
        (x, y), (left, top) = placed.scale, placed.offset
        for name, corner in (("offset", [top, left]), ("shrink", [1 / y, 1 / x])):
            self.register_buffer(name, torch.tensor(corner * 2), persistent=False)

    def forward(self, boxes: Tensor) -> Tensor:
        """Map boxes ``[N,n,4]``."""
        return (boxes - self.offset) * self.shrink


def multiplications(spec: InputSpec, frame: tuple[int, int]) -> float:
    """Return roughly how many multiplications the resize of a frame (height, width) takes."""
    height, width = frame
    rows, columns = place(spec, height, width).content
    row_count, column_count = (
        (height, columns) if begins_with_rows(frame, (rows, columns)) else (rows, width)
    )
    # Along rows, a number is also multiplied by the zeros in the filters of the other channels.
    along = spec.channels**2 * columns * row_count * _taps(width, columns)
    return along + spec.channels * rows * column_count * _taps(height, rows)


def _taps(source: int, target: int) -> float:
    """Return roughly how many taps a filter has."""
    if source == target:
        return 1
    scale = source / target
    return source // math.gcd(source, target) + 2 * max(1.0, scale) - scale


def cost_notes(spec: InputSpec) -> tuple[str, ...]:
    """Return a sentence if the resize is slow, with the nearest frame size that is fast."""
    if spec.source_size is None or (cost := multiplications(spec, spec.source_size)) < _DEAR:
        return ()
    height, width = spec.source_size
    steps = range(-_NEAR, _NEAR + 1)
    near = sorted(itertools.product(steps, steps), key=lambda by: abs(by[0]) + abs(by[1]))
    sizes = ((max(1, height + down), max(1, width + across)) for down, across in near)
    cheap = next((each for each in sizes if multiplications(spec, each) < _DEAR / 2), None)
    better = (
        f" Frames of {cheap[0]}x{cheap[1]} take less than {_DEAR / 2e6:,.0f} million."
        if cheap
        else ""
    )
    text = (
        f"Resizing a frame of {height}x{width} takes {cost / 1e6:,.0f} million multiplications, "
        f"because its sides have few factors in common with those of the network's input.{better}"
    )
    return (text,)
