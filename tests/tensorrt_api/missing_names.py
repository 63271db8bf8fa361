"""Read dotted names from stdin as JSON; write those that the bindings lack. The tests run this."""

import json
import sys

import tensorrt_bindings


def exists(name: str) -> bool:
    value = tensorrt_bindings
    for part in name.split("."):
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True


json.dump([each for each in json.load(sys.stdin) if not exists(each)], sys.stdout)
