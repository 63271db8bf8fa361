"""Write a type stub of the bindings to stdout. The tests run it and do not keep the output.

pybind11 writes a typed signature into every docstring. Types that are not Python, such as C++
types, become Any.
"""

import inspect
import keyword
import re
import sys

import tensorrt_bindings

_SIGNATURE = re.compile(r"^(?:\d+\. )?(\w+)\((.*)\) -> (.+)$")
_MODULE = re.compile(r"\btensorrt_bindings\.tensorrt\.")
_KNOWN = re.compile(r"^[\w.\[\], |]+$")
HEAD = """import typing
import typing_extensions
import collections.abc
from typing import Any
Dims = typing.Sequence[int]
__version__: str
def nptype(trt_type: DataType) -> Any: ...
"""
_SKIPPED = {"Dims"}


def kind_of(text: str) -> str:
    text = _MODULE.sub("", text.strip())
    names = set(re.findall(r"[\w.]+", text))
    known = _KNOWN.match(text) and all(is_known(each) for each in names)
    return text if known else "Any"


def is_known(name: str) -> bool:
    if name.startswith(("typing.", "typing_extensions.", "collections.abc.")):
        return True
    if name in {"int", "float", "bool", "str", "bytes", "None", "list", "tuple", "object", "dict"}:
        return True
    value = tensorrt_bindings
    for part in name.split("."):
        value = getattr(value, part, None)
    return inspect.isclass(value)


def arguments_of(text: str) -> list[str]:
    """Split at commas outside brackets."""
    parts, depth, current = [], 0, ""
    for letter in text:
        depth += (letter in "[(<{") - (letter in "])>}")
        if letter == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += letter
    return [each.strip() for each in (*parts, current) if each.strip()]


def stub_of_argument(text: str) -> str:
    if text in {"*", "/"} or text.startswith("*"):
        return text
    name, _, rest = text.partition(":")
    kind, default, _ = rest.partition(" = ")
    if name == "self":
        return "self"
    name = f"{name}_" if keyword.iskeyword(name) else name
    return f"{name}: {kind_of(kind)}{' = ...' if default else ''}"


def signatures(documentation: str) -> list[tuple[str, str]]:
    lines = (line.strip() for line in documentation.splitlines())
    found = [match for line in lines if (match := _SIGNATURE.match(line))]
    typed = [each for each in found if each.group(2) != "*args, **kwargs"] or found
    return [(stub_of_arguments(each.group(2)), kind_of(each.group(3))) for each in typed]


def stub_of_arguments(text: str) -> str:
    """If an argument has a default, give every later one a default: Python requires it, C++ not."""
    stubs = [stub_of_argument(each) for each in arguments_of(text)]
    for index, each in enumerate(stubs):
        if ": " in each and "=" not in each and any("=" in earlier for earlier in stubs[:index]):
            stubs[index] = f"{each} = ..."
    return ", ".join(stubs)


def method(name: str, documentation: str) -> list[str]:
    found = signatures(documentation)
    if not found:
        return [f"    def {name}(self, *args: Any, **kwargs: Any) -> Any: ..."]
    overloaded = len(found) > 1
    lines = []
    for arguments, result in found:
        lines += ["    @typing.overload"] * overloaded
        kind = "None" if name == "__init__" else result
        lines.append(f"    def {name}({arguments}) -> {kind}: ...")
    return lines


def property_kind(value: property) -> str:
    documentation = (value.fget.__doc__ or "") if value.fget else ""
    match = re.search(r"\) -> (.+)$", documentation.strip())
    return kind_of(match.group(1)) if match else "Any"


def body(kind: type) -> list[str]:
    members = getattr(kind, "__members__", None)
    if members is not None:
        values = [f"    {name}: typing.ClassVar[{kind.__qualname__}]" for name in members]
        values = [each for each in values if not keyword.iskeyword(each.split(":")[0].strip())]
        return [*values, "    def __int__(self) -> int: ...", "    value: int", "    name: str"]
    lines = []
    for name, value in sorted(vars(kind).items()):
        if keyword.iskeyword(name) or (name.startswith("_") and name != "__init__"):
            continue
        if inspect.isclass(value):
            lines += ["    " + line for line in class_stub(value)]
        elif isinstance(value, property):
            lines.append(f"    {name}: {property_kind(value)}")
        elif callable(value):
            lines += method(name, value.__doc__ or "")
        else:
            lines.append(f"    {name}: typing.ClassVar[Any]")
    if kind.__name__ == "IHostMemory":
        lines.append("    def __buffer__(self, flags: int, /) -> memoryview: ...")
    return lines or ["    ..."]


def class_stub(kind: type) -> list[str]:
    known = [each for each in kind.__bases__ if vars(tensorrt_bindings).get(each.__name__) is each]
    bases = f"({', '.join(each.__name__ for each in known)})" if known else ""
    return [f"class {kind.__name__}{bases}:", *body(kind)]


sys.stdout.write(HEAD)
for name, kind in inspect.getmembers(tensorrt_bindings, inspect.isclass):
    if name not in _SKIPPED and kind.__module__.startswith("tensorrt_bindings"):
        sys.stdout.write("\n".join(class_stub(kind)) + "\n")
