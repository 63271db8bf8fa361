"""Fetch NVIDIA's Python bindings of TensorRT 10 and 11 to where the tests look for them.

Both releases install the same module name, so each gets a folder of its own:
``.venv/tensorrt-bindings/10`` and ``.venv/tensorrt-bindings/11``. Only the bindings are fetched,
about 1.5 MB each; TensorRT itself is not needed.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

REQUIREMENTS = {
    "10": "tensorrt-cu12-bindings>=10,<11",
    "11": "tensorrt-cu13-bindings>=11,<12",
}
TARGET = Path(sys.prefix) / "tensorrt-bindings"


def main() -> int:
    """Fetch the bindings that are not there yet; return the exit code."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        sys.stderr.write("The bindings of TensorRT are made for Linux on x86-64: not fetched.\n")
        return 0
    for major, requirement in REQUIREMENTS.items():
        folder = TARGET / major
        if not folder.is_dir():
            _fetch(requirement, folder)
    return 0


def _fetch(requirement: str, folder: Path) -> None:
    """Unpack the wheel of ``requirement`` into ``folder``, all of it or nothing."""
    TARGET.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TARGET) as scratch:
        downloads, unpacked = Path(scratch, "downloads"), Path(scratch, "unpacked")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", str(downloads), requirement]
        subprocess.run(command, check=True)  # noqa: S603 - our own interpreter, fixed arguments
        (wheel,) = downloads.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        unpacked.rename(folder)


if __name__ == "__main__":
    sys.exit(main())
