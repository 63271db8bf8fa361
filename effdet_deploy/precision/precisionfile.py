"""The precision file, which says which groups of layers are INT8; users can edit and reuse it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from effdet_deploy.errors import DataError, UnknownNameError
from effdet_deploy.files import read_json_object, write_atomically

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from effdet_deploy.precision.int8.convolutions import Convolution
    from effdet_deploy.precision.int8.layout import Layout
    from effdet_deploy.precision.int8.sensitivity import Search

INT8, HIGHER = "int8", "higher"
_VERSION = 1


def write_precision_file(
    path: Path,
    convolutions: Iterable[Convolution],
    names: Collection[str],
    search: Search | None = None,
) -> None:
    """Write which groups of ``convolutions`` are INT8: those with a member in ``names``.

    ``search`` adds a table of losses for human readers, which no program reads again.
    """
    groups: dict[str, str] = {}
    for each in convolutions:
        chosen = INT8 if each.name in names else groups.get(each.group, HIGHER)
        groups[each.group] = chosen
    document: dict[str, Any] = {"version": _VERSION, "groups": groups}
    if search is not None:
        document |= {
            "map_drop_points": search.drop,
            "int8_share_of_macs": search.share,
            "losses": [
                {"group": each.group, "macs": each.macs_share, "noise": each.noise}
                for each in search.losses
            ],
        }
    write_atomically(path, json.dumps(document, indent=2) + "\n")


def read_precision_file(
    path: Path, convolutions: Iterable[Convolution], layout: Layout
) -> tuple[str, ...]:
    """Return the names of the convolutions that the file makes INT8.

    A group that the file does not name stays in higher precision.

    Raises:
        DataError: the file is unreadable, is not a precision file, or makes a layer INT8 that
            cannot be INT8.
        UnknownNameError: the file names a group that the network does not have.
    """
    groups = _groups(path)
    every = list(convolutions)
    known = {each.group for each in every}
    for group in groups:
        if group not in known:
            raise UnknownNameError("group of layers", group, known)
    products = {each.group for each in every if not layout.can_take(each)}
    if refused := sorted(each for each in products if groups.get(each) == INT8):
        raise DataError(
            f"The precision file '{path}' makes {refused[0]} {INT8}, but this group is a matrix "
            "product, which this target computes in higher precision.",
            f"Leave this group out, or give it the value '{HIGHER}'.",
        )
    return tuple(each.name for each in every if groups.get(each.group) == INT8)


def require_precision_file(path: Path) -> None:
    """Check that the file can be read, without knowing the network.

    Raises:
        DataError: the file is unreadable or is not a precision file.
    """
    _groups(path)


def _groups(path: Path) -> dict[str, str]:
    remedy = (
        "Write the file in the form in which an export with --int8 writes one beside the model."
    )
    groups = read_json_object(path, "The precision file", remedy).get("groups")
    if not isinstance(groups, dict) or any(each not in (INT8, HIGHER) for each in groups.values()):
        raise DataError(
            f"The precision file '{path}' must hold 'groups' with the values '{INT8}' and "
            f"'{HIGHER}'.",
            remedy,
        )
    return groups
