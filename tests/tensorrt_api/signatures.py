"""Write the methods of all classes with their argument names as JSON. The tests run this.

pybind11 writes a signature per overload into the first lines of every docstring.
"""

import inspect
import json
import re
import sys

import tensorrt_bindings

_SIGNATURE = re.compile(r"^(?:\d+\. )?(\w+)\((.*)\) -> (.+)$")
_ARGUMENT = re.compile(r"(\w+): ")


def argument_names(documentation: str) -> list[list[str]]:
    lines = (line.strip() for line in documentation.splitlines())
    found = [match for line in lines if (match := _SIGNATURE.match(line))]
    return [_ARGUMENT.findall(each.group(2))[1:] for each in found]


def methods_of(kind: type) -> dict[str, list[list[str]]]:
    return {
        name: argument_names(value.__doc__ or "")
        for name, value in inspect.getmembers(kind)
        if not isinstance(value, property)
        and callable(value)
        and (not name.startswith("_") or name == "__init__")
    }


classes = inspect.getmembers(tensorrt_bindings, inspect.isclass)
json.dump({name: methods_of(kind) for name, kind in classes}, sys.stdout)
