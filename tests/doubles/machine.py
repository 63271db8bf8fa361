"""Environment variables that give a tested process the double of TensorRT or of NVIDIA's driver."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

DOUBLE = Path(__file__).parent

_DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int length, int device) {
  strncpy(name, "NVIDIA Double", length); return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 8 : attribute == 76 ? 9 : 0; return 0;
}
"""


def with_double(scenario: str = "", *, version: str = "10.16.1.11", log: Path | None = None):
    """Return the environment variables that put the double in TensorRT's place."""
    variables = {
        "PYTHONPATH": str(DOUBLE),
        "TENSORRT_DOUBLE": scenario,
        "TENSORRT_DOUBLE_VERSION": version,
    }
    return variables | ({"TENSORRT_DOUBLE_LOG": str(log)} if log else {})


def recorded(log: Path) -> list[list[str]]:
    """Return the calls that the double has recorded."""
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def with_driver(directory: Path) -> dict[str, str]:
    """Return variables with which the driver reports one GPU: "NVIDIA Double", capability 8.9."""
    source = directory / "driver.c"
    source.write_text(_DRIVER, encoding="utf-8")
    library = directory / "libcuda.so.1"
    command = ["gcc", "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return {"LD_LIBRARY_PATH": f"{directory}{os.pathsep}{os.environ.get('LD_LIBRARY_PATH', '')}"}
