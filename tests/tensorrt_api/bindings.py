"""NVIDIA's own Python bindings of TensorRT, imported without TensorRT.

When ``tensorrt.so`` is loaded, it needs a few functions of NVIDIA's libraries, but it calls them
only when an object is created. So stub libraries that only have functions of these names are
enough.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(sys.prefix) / "tensorrt-bindings"
HERE = Path(__file__).parent
_FUNCTIONS = {
    "nvinfer": (
        "createInferBuilder_INTERNAL",
        "createInferRuntime_INTERNAL",
        "createInferRefitter_INTERNAL",
        "getPluginRegistry",
        "getBuilderPluginRegistry",
    ),
    "nvonnxparser": (
        "createNvOnnxParser_INTERNAL",
        "createNvOnnxParserRefitter_INTERNAL",
        "getNvOnnxParserVersion",
    ),
    "nvinfer_plugin": ("initLibNvInferPlugins",),
}


@dataclass(frozen=True)
class Bindings:
    """One release: its major version, the folder of its wheel, and the folder of the stubs."""

    major: str
    folder: Path
    libraries: Path

    def run(self, script: str, *arguments: str, given: str = "") -> str:
        """Run a script of this folder in a process with the bindings; return its stdout."""
        done = subprocess.run(
            [sys.executable, str(HERE / script), *arguments],
            env={
                **os.environ,
                "LD_LIBRARY_PATH": str(self.libraries),
                "PYTHONPATH": str(self.folder),
            },
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def missing(self, names: list[str]) -> list[str]:
        """Return the dotted names that the module does not have."""
        return json.loads(self.run("missing_names.py", given=json.dumps(names)))


def compile_stubs(directory: Path, major: str) -> Path:
    """Compile stub libraries, whose functions do nothing."""
    for library, functions in _FUNCTIONS.items():
        source = directory / f"{library}.c"
        source.write_text("".join(f"void *{each}(void) {{ return 0; }}\n" for each in functions))
        name = f"lib{library}.so.{major}"
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(directory / name)]
        subprocess.run([*command, str(source)], check=True, capture_output=True)
    return directory
