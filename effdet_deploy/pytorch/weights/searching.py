"""Finding the network in a checkpoint: nested, wrapped, averaged, or a whole module.

Training loops store weights under their own keys and with their own prefixes. This search goes
through the whole content, looks for tables of tensors with the layers of a known network, and
prefers averaged weights, because those are usually the best.
"""

from __future__ import annotations

import itertools
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from effdet_deploy.pytorch.weights.containers import Storage
from effdet_deploy.pytorch.weights.unpickling import StandIn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_MAX_NODES = 400_000
"""The most objects that are visited: a D7x checkpoint with optimizer and averages has 20,000."""
_MAX_MODULES = 20_000
"""The most modules of a network: D7x has 3,000. In a pickle, a module can hold another one twice,
which holds a third one twice, and so on."""
_MAX_NETWORKS = 100
_MAX_DEPTH = 64
_AVERAGED = re.compile(r"(^|[._])(ema|averaged?|swa|shadow|teacher|polyak)", re.IGNORECASE)
_LANDMARKS = (
    re.compile(r"^(.*?)class_net\.predict\."),
    re.compile(r"^(.*?)(?:classifier|regressor)\.header\.(?:depthwise|pointwise)_conv\."),
)
"""Layers that every network of effdet or zylo117 has, after any prefix."""
_AROUND_PARTS = re.compile(
    r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
"""Parts of names that torch adds if a module inside a network is compiled or sharded, or if its
activations are checkpointed."""
_CLASS_NAMES = (
    *(("meta", "classes"), ("meta", "CLASSES")),
    *(("meta", "dataset_meta", "classes"), ("meta", "dataset_meta", "CLASSES")),
    *(("classes",), ("class_names",)),
)
"""Places of class names in checkpoints: the keys that lead to them."""
_TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_TENSOR_OF_DTYPE = "torch._utils._rebuild_tensor_v3"
_WRAPPED_TENSORS = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.nn.parameter.Parameter",
)
_UNUSABLE = {
    "torch._utils._rebuild_qtensor": "quantized",
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_sparse_csr_tensor": "sparse",
    "torch._utils._rebuild_meta_tensor_no_storage": "without values (on the meta device)",
    "torch._utils._rebuild_wrapper_subclass": "of a special class",
    "torch._utils._rebuild_nested_tensor": "nested",
    "torch._tensor._rebuild_from_type_v2": "of a special class",
}


@dataclass(frozen=True)
class Unusable:
    """A tensor that cannot be a weight; ``kind`` gives the reason, as the end of "it is …"."""

    kind: str


Found = torch.Tensor | Unusable
"""What is found where a tensor is expected: the tensor, or the reason why it cannot be used."""


@dataclass(frozen=True)
class Candidate:
    """A network in a checkpoint.

    Attributes:
        place: the keys that lead to its table, joined by dots; empty at the top.
        prefix: the prefix of every name in that table, such as ``model.``.
        tensors: the network's tensors by their names without the prefix.
        beside: tensors in the same table that do not belong to the network.
    """

    place: str
    prefix: str
    tensors: dict[str, Found]
    beside: dict[str, Found]

    @property
    def is_averaged(self) -> bool:
        """Whether the names say that these are averaged weights."""
        return bool(_AVERAGED.search(f"{self.place}.{self.prefix}"))


def entries_of(node: Any) -> dict[str, Any]:
    """Return the items of a dict, or of an object that is a dict."""
    pairs = node.entries if isinstance(node, StandIn) else node.items()
    return {str(key): value for key, value in pairs if isinstance(key, str | int)}


def attributes_of(node: Any) -> dict[str, Any]:
    """Return the attributes that unpickling would have given to an object."""
    state = node.state if isinstance(node, StandIn) else None
    # The state of a class with slots is a pair of tables.
    parts = state if isinstance(state, tuple) else (state,)
    return {
        key: value
        for part in parts
        if isinstance(part, StandIn)
        for key, value in entries_of(part).items()
    }


def _inside(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield all values inside a value, with their keys, attribute names or indices."""
    members: Iterable[Any] = ()
    if isinstance(node, StandIn):
        yield from attributes_of(node).items()
        members = (*node.members, *node.arguments)
        if not isinstance(node.state, StandIn):
            members = (*members, node.state)
    if isinstance(node, StandIn | dict):
        yield from entries_of(node).items()
    elif isinstance(node, list | tuple):
        members = node
    yield from ((str(index), value) for index, value in enumerate(members))


def tensor_of(node: Any) -> Found | None:
    """Return the tensor that an object stands for, or None if it is not a tensor.

    The tensor shares memory with its storage.
    """
    if isinstance(node, torch.Tensor):
        return node
    if isinstance(node, np.ndarray):
        is_number = node.dtype.kind in "fiub"
        return torch.from_numpy(node) if is_number else Unusable("not an array of numbers")
    if not isinstance(node, StandIn):
        return None
    name, arguments = node.qualified_name, node.arguments
    if name in _TENSORS and len(arguments) >= 4:
        return _dense(*arguments[:4])
    if name == _TENSOR_OF_DTYPE and len(arguments) >= 7:
        dtype = getattr(torch, getattr(arguments[6], "qualified_name", "").rpartition(".")[2], None)
        return _dense(arguments[0], arguments[1], arguments[2], arguments[3], dtype)
    if name in _WRAPPED_TENSORS and arguments:
        return tensor_of(arguments[0])
    return Unusable(_UNUSABLE[name]) if name in _UNUSABLE else None


def _dense(
    storage: Any, offset: Any, size: Any, stride: Any, dtype: torch.dtype | None = None
) -> Found:
    dtype = dtype or (storage.dtype if isinstance(storage, Storage) else None)
    if not isinstance(dtype, torch.dtype):
        return Unusable("of a type that weights cannot have")
    size, stride = _whole_numbers(size), _whole_numbers(stride)
    if size is None or stride is None or len(size) != len(stride) or type(offset) is not int:
        return Unusable("without a valid shape")
    elements = int(np.prod(size, dtype=object)) if size else 1
    if not elements:
        return torch.empty(size, dtype=dtype)
    held = len(storage.data) // dtype.itemsize
    last = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))
    if not (offset >= 0 and last < held and elements <= held):
        return Unusable("larger than the values that the file holds for it")
    return torch.frombuffer(storage.data, dtype=dtype, count=held).as_strided(size, stride, offset)


def _whole_numbers(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, StandIn) and value.qualified_name == "torch.Size" and value.arguments:
        value = value.arguments[0]
    if isinstance(value, tuple | list) and all(type(each) is int and each >= 0 for each in value):
        return tuple(value)
    return None


def _is_module(attributes: Mapping[str, Any]) -> bool:
    return {"_parameters", "_buffers", "_modules"} <= attributes.keys()


def table_of(node: Any) -> dict[str, Found]:
    """Return the tensors of a table of tensors, or of a module and all modules inside it."""
    if not isinstance(node, StandIn | dict):
        return {}
    attributes = attributes_of(node)
    if not _is_module(attributes):
        named = ((key, tensor_of(value)) for key, value in entries_of(node).items())
        return {key: tensor for key, tensor in named if tensor is not None}
    found: dict[str, Found] = {}
    waiting = deque([("", attributes, 0)])
    for count in itertools.count():
        if not waiting:
            break
        if count == _MAX_MODULES:
            raise ValueError(f"it holds a network of more than {_MAX_MODULES:,} modules")
        prefix, parts, depth = waiting.popleft()
        for kind in ("_parameters", "_buffers"):
            found |= {prefix + key: tensor for key, tensor in table_of(parts[kind]).items()}
        inside = entries_of(parts["_modules"]) if isinstance(parts["_modules"], StandIn) else {}
        for key, value in inside.items():
            inner = attributes_of(value)
            if depth < _MAX_DEPTH and _is_module(inner):
                waiting.append((f"{prefix}{key}.", inner, depth + 1))
    return found


def class_names_in(loaded: Any) -> tuple[str, ...]:
    """Return the class names that a training tool stored beside the weights; empty without any.

    IceVision and mmengine store them under ``meta``, some loops at the top.
    """
    for place in _CLASS_NAMES:
        node = loaded
        for key in place:
            node = entries_of(node).get(key) if isinstance(node, StandIn | dict) else None
        members = node.members if isinstance(node, StandIn) else node
        if isinstance(members, list | tuple) and members:
            names = [each for each in members if isinstance(each, str)]
            if len(names) == len(members):
                return tuple(names)
    return ()


def find_networks(loaded: Any) -> list[Candidate]:
    """Return the networks in a checkpoint, best one first.

    Networks of averaged weights come first, and then the networks nearest to the file's top.
    """
    candidates: list[Candidate] = []
    seen: set[int] = set()
    left = _MAX_NODES
    waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), loaded)])
    while waiting and left > 0:
        path, node = waiting.popleft()
        if id(node) in seen or not isinstance(node, StandIn | dict | list | tuple):
            continue
        seen.add(id(node))
        table = table_of(node)
        plain = {_AROUND_PARTS.sub("", name): tensor for name, tensor in table.items()}
        # Two copies of a network, one of them wrapped, stay separate.
        found = _in_table(path, plain if len(plain) == len(table) else table)
        candidates += found
        left -= len(table) + 1
        if found and _is_module(attributes_of(node)):
            continue  # a module, whose parts are the same network again
        if len(path) < _MAX_DEPTH:
            # Objects may share one large table, which is then visited for every object.
            inside = list(itertools.islice(_inside(node), max(left, 0)))
            left -= len(inside)
            waiting.extend(((*path, key), value) for key, value in inside)
    return sorted(candidates, key=lambda each: (not each.is_averaged, each.place.count(".")))


def _in_table(path: tuple[str, ...], table: Mapping[str, Found]) -> list[Candidate]:
    prefixes = {
        match[1]: None for name in table for mark in _LANDMARKS if (match := mark.match(name))
    }
    if len(prefixes) > _MAX_NETWORKS:
        raise ValueError(f"it holds {len(prefixes):,} networks side by side")
    candidates = []
    for prefix in prefixes:
        # If a prefix begins with another prefix, the longer one is a separate network.
        inner = [other for other in prefixes if other != prefix and other.startswith(prefix)]
        mine = {
            name.removeprefix(prefix): tensor
            for name, tensor in table.items()
            if name.startswith(prefix) and not any(name.startswith(each) for each in inner)
        }
        taken = {prefix + name for name in mine}
        beside = {name: tensor for name, tensor in table.items() if name not in taken}
        candidates.append(Candidate(".".join(path), prefix, mine, beside))
    return candidates
