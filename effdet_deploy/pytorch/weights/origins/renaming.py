"""Renaming of other projects' variables to ours: ordered rules, and facts about our network."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from effdet_deploy.pytorch.weights.origins.settings import SettingsFile

_BLOCK = re.compile(r"backbone\.blocks\.(\d+)\.(\d+)\.")
_NODE = re.compile(r"fpn\.cell\.0\.fnode\.(\d+)\.")
_MIN_LEVEL = 3


@dataclass(frozen=True)
class Layout:
    """Facts about our network that rules need, taken from the names of its state dict.

    Attributes:
        blocks: the prefixes of the backbone's blocks in running order, such as
            ``backbone.blocks.1.0``; other projects number the blocks straight through.
        nodes: how many nodes a cell of the pyramid has: one on the way down and one on the way up
            for every two neighboring levels.
    """

    blocks: tuple[str, ...]
    nodes: int

    @classmethod
    def of(cls, names: Iterable[str]) -> Layout:
        """Read the layout from the names of our state dict."""
        listed = list(names)
        blocks = {
            tuple(map(int, match.groups())) for each in listed if (match := _BLOCK.match(each))
        }
        nodes = {match[1] for each in listed if (match := _NODE.match(each))}
        return cls(
            tuple(f"backbone.blocks.{stage}.{block}" for stage, block in sorted(blocks)), len(nodes)
        )

    @property
    def top(self) -> int:
        """The coarsest level of the pyramid: 7, or 8 for D7x."""
        return _MIN_LEVEL + self.nodes // 2

    def going_down(self, level: int) -> int:
        """Return the number of the node that joins ``level`` with the level above it."""
        return self.top - 1 - level

    def going_up(self, level: int) -> int:
        """Return the number of the node that joins ``level`` with the level below it."""
        return self.nodes // 2 + level - _MIN_LEVEL - 1


Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Origin:
    """A project that trains EfficientDets, and how its checkpoints are converted.

    Attributes:
        name: the name for ``--origin`` and the spec.
        recognizes: returns whether variables with these names are the project's.
        translate: takes tensors and the layout of our network; returns the tensors with our names,
            and the names that were not mapped.
        variants: our names of the project's networks.
        overrides: the config fields in which its networks differ from those variants.
        optional: a regular expression for names of ours that the project's files have and our
            network may lack, because nothing reads them.
        assumed: sentences about what a checkpoint of the project does not say.
        settings: the file that its trainings leave beside their weights, if there is one.
    """

    name: str
    recognizes: Callable[[Collection[str]], bool]
    translate: Callable[[Arrays, Layout], tuple[dict[str, NDArray[Any]], list[str]]]
    variants: tuple[str, ...]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    optional: str = r"(?!)"
    assumed: tuple[str, ...] = ()
    settings: SettingsFile | None = None


Target = str | Callable[..., str]
Rule = tuple[str, Target]
"""A regular expression for a project's whole name, and our name: as a template for
``Match.expand``, or as a function of the layout and the match's groups, with numbers as int."""


def renamed(
    names: Iterable[str], rules: Sequence[Rule], layout: Layout
) -> tuple[dict[str, str], list[str]]:
    """Apply the first matching rule to every name.

    Returns:
        Our names by the names that a rule matches, and the names that no rule matches.

    Raises:
        IndexError: a name counts a block that the layout does not have.
    """
    compiled = [(re.compile(pattern), target) for pattern, target in rules]
    known: dict[str, str] = {}
    unknown: list[str] = []
    for name in names:
        match, target = next(
            ((match, target) for pattern, target in compiled if (match := pattern.fullmatch(name))),
            (None, ""),
        )
        if match is None:
            unknown.append(name)
        elif isinstance(target, str):
            known[name] = match.expand(target)
        else:
            groups = (int(each) if each and each.isdecimal() else each for each in match.groups())
            known[name] = target(layout, *groups)
    return known, unknown
