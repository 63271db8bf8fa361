"""Reading of pickles without running any code in them.

A pickle is a program that names functions and classes and calls them. Here, every name becomes an
inert stand-in, whose call remembers its arguments and does nothing else. So weights are found
beside and inside objects of any class, and our own code finds out afterwards what a stand-in means
(a tensor, an array, a module). Names that can act on the machine are refused, because a file with
such names was made to do something.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

MAX_PICKLE_BYTES = 256 << 20
"""The largest pickle that is read, in bytes; the bytes of tensors are not part of it."""

_ACTING_BUILTINS = frozenset(
    {
        *("__import__", "apply", "breakpoint", "compile", "delattr", "eval", "exec", "execfile"),
        *("exit", "file", "filter", "getattr", "globals", "help", "input", "locals", "map", "open"),
        *("quit", "raw_input", "reduce", "reload", "setattr", "vars"),
    }
)
_ACTING = frozenset(
    {
        *("asyncio", "code", "codeop", "cloudpickle", "commands", "ctypes", "dill", "ftplib"),
        *("http", "httpx", "imp", "importlib", "joblib", "marshal", "multiprocessing", "nt", "os"),
        *("pdb", "pickle", "_pickle", "pip", "pkgutil", "popen2", "posix", "_posixsubprocess"),
        *("pty", "pydoc", "requests", "runpy", "shutil", "smtplib", "socket", "subprocess", "sys"),
        *("tempfile", "timeit", "urllib", "webbrowser", "zipimport"),
    }
)
"""Modules that act on the machine; no checkpoint needs them."""
_LOADERS = frozenset(
    {
        *("torch.load", "torch.hub.load", "torch.jit.load", "torch.serialization.load"),
        *("torch.utils.cpp_extension.load", "torch.utils.cpp_extension.load_inline"),
        *("numpy.load", "numpy.lib.npyio.load", "numpy.fromfile", "numpy.memmap"),
        *("numpy.lib._npyio_impl.load", "pandas.read_pickle", "pandas.io.pickle.read_pickle"),
        *("operator.attrgetter", "operator.methodcaller", "types.FunctionType", "types.CodeType"),
    }
)
"""Functions that read other files, or that call or make code."""


class ForbiddenNameError(pickle.UnpicklingError):
    """A pickle names something that could act on the machine; ``name`` says what."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Frozen(type):
    """A class whose attributes cannot be set: a pickle's BUILD instruction would set them."""

    def __setattr__(cls, name: str, value: object) -> NoReturn:
        raise pickle.UnpicklingError(f"it sets an attribute of {cls.__qualname__}")


class StandIn(metaclass=_Frozen):
    """The replacement for an object that is not created.

    Attributes:
        qualified_name: module and name of its class, or of the function that would have made it.
        arguments: the arguments of the call.
        state: the state to restore, usually a dict of its attributes.
        members: the values appended to it.
        entries: the values set in it by key, as pairs.
    """

    __slots__ = ("arguments", "entries", "members", "state")
    qualified_name = ""
    arguments: tuple[Any, ...]
    state: Any
    members: list[Any]
    entries: list[tuple[Any, Any]]

    def __new__(cls, *arguments: Any, **named: Any) -> Self:
        """Accept any arguments that the class would have been called with."""
        made = super().__new__(cls)
        made.arguments = (*arguments, *named.values())
        made.state, made.members, made.entries = None, [], []
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        """Do nothing more."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries.append((key, value))

    def append(self, value: Any) -> None:
        """Append a member of a list."""
        self.members.append(value)

    def extend(self, values: Any) -> None:
        """Append members of a list."""
        self.members.extend(values)

    def add(self, value: Any) -> None:
        """Add a member of a set."""
        self.members.append(value)


# The unpickler in C would allocate memory for the largest memo number that a pickle names.
class _Reader(pickle._Unpickler):  # noqa: SLF001
    """The standard library's unpickler, which gets stand-ins for all names.

    Dicts and sets become stand-ins too: hashing a key that is nested a million times would overflow
    the stack.
    """

    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)  # noqa: SLF001

    def __init__(self, file: BinaryIO, load_storage: Callable[[Any], object]) -> None:
        super().__init__(file, encoding="latin1")
        self._load_storage = load_storage
        self._known: dict[str, type[StandIn]] = {}

    def find_class(self, module: str, name: str) -> type[StandIn]:
        """Return the stand-in for a name; nothing is imported."""
        full = f"{module}.{name}"
        # A dotted name can reach through modules, as in torch.os.system.
        parts = full.split(".")
        acts = full in _LOADERS or not _ACTING.isdisjoint((parts[0], *name.split(".")[:-1]))
        if acts or (parts[0] in ("builtins", "__builtin__") and name in _ACTING_BUILTINS):
            raise ForbiddenNameError(full)
        if full not in self._known:
            body = {"__slots__": (), "qualified_name": full}
            self._known[full] = cast(
                "type[StandIn]", _Frozen(name.rpartition(".")[2] or "unnamed", (StandIn,), body)
            )
        return self._known[full]

    def persistent_load(self, pid: Any) -> object:
        """Return the object for a persistent id; torch refers to its storages in this way."""
        return self._load_storage(pid)

    def _empty_dict(self) -> None:
        self.append(self.find_class("builtins", "dict")())

    def _empty_set(self) -> None:
        self.append(self.find_class("builtins", "set")())

    def _marked_dict(self) -> None:
        made, items = self.find_class("builtins", "dict")(), self.pop_mark()
        made.entries.extend(zip(items[::2], items[1::2], strict=True))
        self.append(made)

    def _marked_set(self) -> None:
        made = self.find_class("builtins", "frozenset")()
        made.members.extend(self.pop_mark())
        self.append(made)

    dispatch[pickle.EMPTY_DICT[0]] = _empty_dict
    dispatch[pickle.DICT[0]] = _marked_dict
    dispatch[pickle.EMPTY_SET[0]] = _empty_set
    dispatch[pickle.FROZENSET[0]] = _marked_set


def unpickle(file: BinaryIO, load_storage: Callable[[Any], object]) -> object:
    """Read one pickle from ``file``: numbers, strings, lists, tuples and :class:`StandIn` objects.

    Args:
        file: positioned at the pickle's first byte; afterwards it is behind the pickle.
        load_storage: returns the object for a persistent id.

    Raises:
        ForbiddenNameError: the pickle names something that could act on the machine.
        pickle.UnpicklingError: the pickle is damaged, or does what no checkpoint does. For damaged
            files, ``pickle`` may also raise other errors.
    """
    return _Reader(file, load_storage).load()
