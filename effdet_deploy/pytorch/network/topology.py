"""Tables of pyramid topologies: which feature maps every node joins.

The nodes of a cell are numbered after its inputs: input ``i`` is feature map ``i`` (fine to
coarse), the first node is feature map ``num_levels``, and so on.

Sources: FPN (arXiv:1612.03144; EfficientDet, Figure 2a), PANet (arXiv:1803.01534; Figure 2b),
NAS-FPN (arXiv:1904.07392; Figure 2c), BiFPN (EfficientDet, arXiv:1911.09070, section 3), Quad-FPN
(IEEE 9225379). Nodes are in effdet's order, because the ``state_dict`` numbers them; those of
NAS-FPN, which effdet lacks, are in the order of the search.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FUSIONS = {"fa": "fastattn", "attn": "attn", "sum": "sum", "unbounded": "unbounded"}
"""Suffix of an FPN name → how a node weights its inputs."""
POOLED = "pooled"
"""NAS-FPN's own fusion: the first input, pooled to one number per channel, gates the second."""
UNWEIGHTED = ("sum", POOLED)
"""The fusions without learned weights."""


@dataclass(frozen=True)
class FpnNode:
    """One node: its pyramid ``level``, the feature maps it joins, and how it weights them."""

    level: int
    inputs: tuple[int, ...]
    fusion: str


@dataclass(frozen=True)
class FpnTopology:
    """The nodes of one cell in order, and which feature maps leave it, fine to coarse."""

    nodes: tuple[FpnNode, ...]
    outputs: tuple[int, ...]


class _Builder:
    """Collects nodes and remembers the feature maps of every level in order of creation."""

    def __init__(self, min_level: int, max_level: int, fusion: str) -> None:
        self.low, self.high, self.fusion = min_level, max_level, fusion
        self.maps = {level: [level - min_level] for level in range(min_level, max_level + 1)}
        self.nodes: list[FpnNode] = []
        self._ids = itertools.count(max_level - min_level + 1)

    def join(self, level: int, *inputs: int, fusion: str = "") -> int:
        """Add a node at ``level`` that joins the feature maps ``inputs``; return its map."""
        self.nodes.append(FpnNode(level, inputs, fusion or self.fusion))
        self.maps[level].append(next(self._ids))
        return self.maps[level][-1]

    def finish(self) -> FpnTopology:
        """Make the newest feature map of every level an output of the cell."""
        outputs = tuple(self.maps[level][-1] for level in range(self.low, self.high + 1))
        return FpnTopology(tuple(self.nodes), outputs)


def _fpn(build: _Builder) -> None:
    """Top-down only: every level joins its input with the level above."""
    above = build.join(build.high, build.maps[build.high][0])
    for level in range(build.high - 1, build.low - 1, -1):
        above = build.join(level, build.maps[level][0], above)


def _pan(build: _Builder) -> None:
    """Top-down over all levels, then bottom-up over all levels."""
    _fpn(build)
    below = build.join(build.low, build.maps[build.low][-1])
    for level in range(build.low + 1, build.high + 1):
        below = build.join(level, build.maps[level][-1], below)


def _bifpn(build: _Builder) -> None:
    """Top-down, then bottom-up with an extra edge from every level's input."""
    for level in range(build.high - 1, build.low - 1, -1):
        build.join(level, build.maps[level][-1], build.maps[level + 1][-1])
    for level in range(build.low + 1, build.high + 1):
        build.join(level, *build.maps[level], build.maps[level - 1][-1])


def _qufpn(build: _Builder) -> None:
    """Two branches that join at every level: top-down then bottom-up, bottom-up then top-down."""
    low, high, maps = build.low, build.high, build.maps
    first = {level: maps[level][0] for level in maps}
    above = first[high]
    for level in range(high - 1, low - 1, -1):
        above = build.join(level, first[level], above)
    top_down = {level: maps[level][-1] for level in maps}

    below = top_down[low]
    for level in range(low + 1, high):
        below = build.join(level, first[level], top_down[level], below)
    below = build.join(high, first[high], below)
    down_up = {level: maps[level][-1] for level in maps}

    below = first[low]
    for level in range(low + 1, high + 1):
        below = build.join(level, first[level], below)
    bottom_up = {level: maps[level][-1] for level in range(low + 1, high + 1)}

    above = bottom_up[high]
    for level in range(high - 1, low, -1):
        above = build.join(level, first[level], bottom_up[level], above)
    above = build.join(low, first[low], above)
    up_down = {level: maps[level][-1] for level in maps}

    for level in range(low, high + 1):
        build.join(level, down_up[level], up_down[level], fusion="fastattn")


def _nasfpn(build: _Builder) -> None:
    """The seven merging cells that NAS-FPN's search found (arXiv:1904.07392, section 4.2).

    Levels and inputs are those of ``NASFPN_BLOCK_SPECS`` in the TensorFlow model garden. A pooled
    cell is gated by its coarser input, which comes first in the calls below. An input that no cell
    has used is added to the output of its level.
    """
    finest, fine, middle, coarse, coarsest = range(build.low, build.high + 1)
    p3, p4, p5, p6, p7 = (build.maps[level][0] for level in range(build.low, build.high + 1))
    gated = build.join(fine, p6, p4, fusion=POOLED)
    between = build.join(fine, p4, gated)
    p3 = build.join(finest, p3, between)
    p4 = build.join(fine, between, p3)
    p5 = build.join(middle, p4, p3, p5, fusion=POOLED)
    p7 = build.join(coarsest, p5, between, p7, fusion=POOLED)
    build.join(coarse, p7, p5, fusion=POOLED)


_SHAPES: dict[str, Callable[[_Builder], None]] = {
    "bifpn": _bifpn,
    "pan": _pan,
    "qufpn": _qufpn,
    "fpn": _fpn,
    "nasfpn": _nasfpn,
}
NASFPN_LEVELS = 5
"""The number of levels that the search of NAS-FPN used."""
FPN_NAMES = tuple(f"{shape}_{fusion}" for shape in _SHAPES for fusion in FUSIONS)


def fpn_topology(name: str, min_level: int, max_level: int) -> FpnTopology:
    """Return the table of the FPN ``name``, one of :data:`FPN_NAMES`, such as ``bifpn_fa``."""
    shape, _, fusion = name.partition("_")
    build = _Builder(min_level, max_level, FUSIONS[fusion])
    _SHAPES[shape](build)
    return build.finish()
