"""Pack the kit that ``make gpu`` needs on a machine with CUDA and PyTorch: ``gpu_kit.py FOLDER``.

The kit has wheels of the few packages that the machine may lack, and exported files of the digits
detector and of D0. The files share most of their weights, so they are packed into one archive, the
dictionary of which is larger than any of the files.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from effdet_deploy.errors import MissingError

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "examples" / "digits"
WHEELS = (
    *("effdet", "timm", "omegaconf", "pycocotools", "pyyaml"),
    *("safetensors", "google-crc32c", "protobuf"),
    *("pytest", "pytest-timeout", "pluggy", "iniconfig", "packaging", "pygments"),
)
"""The packages that the network, its weights, effdet and the tests need beside PyTorch."""
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
LARGEST_BATCH = 32
PICTURES = 8
FILES = "files.tar.xz"
_DICTIONARY = {"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 1 << 26}
"""The compressor remembers the last 64 MiB, so it finds the same weights in an earlier file."""


def make(kit: Path) -> None:
    """Fill the folder ``kit``; needs the whole development environment and a package index."""
    shutil.rmtree(kit, ignore_errors=True)
    (kit / "wheels").mkdir(parents=True)
    for version in PYTHONS:
        _pip(
            *("download", "--no-deps", "--only-binary=:all:", "--implementation", "cp"),
            *(f"--python-version={version}", *(f"--platform={each}" for each in PLATFORMS)),
            *("-c", str(ROOT / "constraints.txt"), "-d", str(kit / "wheels"), *WHEELS),
        )
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        _write_files(files)
        with (
            lzma.open(kit / FILES, "wb", filters=[_DICTIONARY]) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            for each in sorted(files.iterdir()):
                archive.add(each, each.name)


def _write_files(files: Path) -> None:
    """Export the digits detector, with verification, and D0 with random weights.

    Both are exported to ONNX and to TorchScript, D0 also to ONNX in FP16.
    """
    import torch
    from graphs import CANDIDATES, Case

    from effdet_deploy import ExportOptions, export
    from effdet_deploy.artifact.spec import BatchSpec
    from effdet_deploy.pytorch.network import create_model
    from effdet_deploy.pytorch.network.random_weights import randomize

    scenes = ("--split", "test", "--seed", "3", "--count", str(PICTURES), str(files / "scenes"))
    subprocess.run([sys.executable, str(DIGITS / "scenes.py"), *scenes], check=True)  # noqa: S603
    weights = str(DIGITS / "digits_d0.safetensors")
    for suffix in (".onnx", ".torchscript"):
        export(None, files / f"digits{suffix}", ExportOptions(weights=weights))
    case = Case("d0", None, LARGEST_BATCH, 2, files)
    random = create_model("d0")
    randomize(random)
    # 16 bits are enough for random weights, and halve the size of the kit.
    halves = {
        name: value.half() if value.is_floating_point() else value
        for name, value in random.state_dict().items()
    }
    torch.save(halves, case.checkpoint)
    how = {
        "batch": BatchSpec(1, 1, LARGEST_BATCH),
        "candidates": CANDIDATES,
        "verify": False,
    }
    for name in ("d0.onnx", "d0.torchscript"):
        export(case.weights.ours, files / name, ExportOptions(**how))
    half = ExportOptions(precision="fp16", target="tensorrt", **how)
    export(case.weights.ours, files / "d0-fp16.onnx", half)


def unpack(kit: Path, scratch: Path) -> Path:
    """Unpack the kit on this machine, without a network.

    Packages that this machine lacks are installed into ``scratch``, which is searched last.

    Returns:
        The folder of the exported files.

    Raises:
        MissingError: there is no kit, or it has no wheels for this Python.
    """
    if not (kit / FILES).is_file():
        raise MissingError(
            f"'{kit}' is missing or does not hold the files that the GPU run needs.",
            "Run `make gpu-kit` on a machine with a network, and copy the folder here.",
        )
    missing = [name for name in WHEELS if not _is_installed(name)]
    if missing:
        site = scratch / "site"
        try:
            _pip(
                *("install", "--no-index", "--no-deps", "--no-compile", "--target", str(site)),
                *("--find-links", str(kit / "wheels"), *missing),
            )
        except subprocess.CalledProcessError as error:
            raise MissingError(
                f"This Python lacks {', '.join(missing)}, and the kit has nothing that fits it.",
                f"Use Python {' or '.join(PYTHONS)} with pip on x86-64 Linux, "
                "or install what is missing.",
            ) from error
        sys.path.append(str(site))
        importlib.invalidate_caches()
        # The processes that run the tests, and those that compile, need the packages too.
        inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, inherited), str(site)])
    files = scratch / "files"
    with lzma.open(kit / FILES) as packed, tarfile.open(fileobj=packed) as archive:
        archive.extractall(files, filter="data")
    return files


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True)  # noqa: S603 - our own interpreter


def main(arguments: Sequence[str]) -> int:
    """Make the kit and say how large it is."""
    kit = Path(arguments[0])
    make(kit)
    size = sum(each.stat().st_size for each in kit.rglob("*") if each.is_file())
    print(f"{kit}: {size / 2**20:.1f} MiB; run `make gpu OUT=FOLDER` on a machine with a GPU")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
