"""Build, check and try the files that are published: ``make dist``.

The wheel is built from the sdist, which shows that the sdist is complete. Metadata is read with
`packaging`, as package indexes read it. The wheel is installed into an empty environment. There it
must find the same detections as here, with a file that was exported here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from packaging.metadata import Metadata

from effdet_deploy import __version__

ROOT = Path(__file__).resolve().parents[1]
DIST, WORK = ROOT / "dist", ROOT / "build" / "dist"
PACKAGE = ROOT / "effdet_deploy"
BIN = Path(sys.executable).parent
PINNED = ("-c", "constraints.txt")
NAME = f"effdet_deploy-{__version__}"
BESIDE = {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "PKG-INFO", ".gitignore"}
"""What an sdist holds beside the package."""
INSTALLED = ("effdet-deploy", "effdet-export")


def main() -> int:
    """Make dist/; end with a message if something is wrong."""
    shutil.rmtree(DIST, ignore_errors=True)
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    run(BIN / "uv", "build", "--quiet", "--build-constraints", "constraints.txt", "-o", DIST)
    wheel, sdist = DIST / f"{NAME}-py3-none-any.whl", DIST / f"{NAME}.tar.gz"
    check_wheel(wheel)
    check_sdist(sdist)
    lint_containers()
    detect_there(wheel)
    list_materials(DIST / f"{NAME}.cdx.json")
    for path in sorted(DIST.iterdir()):
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1e6:.2f} MB")
    return 0


def run(*command: object, directory: Path = ROOT) -> str:
    """Run a command and return its output; if it fails, show its errors and end this program."""
    words = [str(each) for each in command]
    done = subprocess.run(words, cwd=directory, stdout=subprocess.PIPE, text=True, check=False)
    require(done.returncode == 0, f"'{' '.join(words)}' ended with {done.returncode}.")
    return done.stdout


def require(holds: bool, sentence: str) -> None:
    """End this program with the sentence unless the condition holds."""
    if not holds:
        raise SystemExit(f"make dist: {sentence}")


def check_wheel(path: Path) -> None:
    """Require that the wheel holds exactly the package, as text files, and complete metadata."""
    with zipfile.ZipFile(path) as wheel:
        names = {each for each in wheel.namelist() if not each.endswith("/")}
        about = f"{NAME}.dist-info"
        inside = {each for each in names if not each.startswith(about)}
        require(inside == package_files(), f"{path.name} differs: {inside ^ package_files()}.")
        for name in names:
            require(is_text(wheel.read(name)), f"'{name}' in {path.name} is a binary file.")
        metadata = Metadata.from_email(wheel.read(f"{about}/METADATA"), validate=True)
        scripts = wheel.read(f"{about}/entry_points.txt").decode()
    require(str(metadata.version) == __version__, "The version differs from _version.py.")
    require(metadata.description_content_type == "text/markdown", "The README is not Markdown.")
    require(metadata.license_expression == "Apache-2.0", "The license is missing.")
    for given in (metadata.summary, metadata.requires_python, metadata.classifiers):
        require(bool(given), "Summary, Python versions or classifiers are missing.")
    for extra in ("export", "eval", "openvino", "report", "tensorrt", "tensorrt-rtx"):
        require(extra in (metadata.provides_extra or ()), f"The extra '{extra}' is missing.")
    for requirement in metadata.requires_dist or ():
        require(not requirement.url, f"'{requirement}' names an address.")
    for name in INSTALLED:
        require(f"{name} = " in scripts, f"The command {name} is missing.")


def check_sdist(path: Path) -> None:
    """Require that the sdist holds exactly the package and the files of :data:`BESIDE`."""
    with tarfile.open(path) as archive:
        names = {each.name for each in archive if each.isfile()}
    wanted = {f"{NAME}/{each}" for each in package_files() | BESIDE}
    require(names == wanted, f"{path.name} differs: {names ^ wanted}.")


def package_files() -> set[str]:
    """Return the package's files that git tracks."""
    return set(run("git", "ls-files", PACKAGE.name).split())


def is_text(content: bytes) -> bool:
    """Return whether a file is UTF-8."""
    try:
        return "\0" not in content.decode("utf-8")
    except UnicodeDecodeError:
        return False


def lint_containers() -> None:
    """Require that hadolint finds nothing to complain about in containers/."""
    run(BIN / "hadolint", *sorted((ROOT / "containers").glob("*.Dockerfile")))


def detect_there(wheel: Path) -> None:
    """Install only the wheel in an empty environment; detect digits there and here, and compare."""
    python = WORK / "environment" / "bin" / "python"
    run(BIN / "uv", "venv", "--quiet", "--python", sys.executable, python.parents[1])
    run(BIN / "uv", "pip", "install", "--quiet", "--python", python, *PINNED, wheel)
    packages = run(BIN / "uv", "pip", "list", "--quiet", "--python", python)
    require("torch" not in packages, "The wheel brings torch.")
    weights = ROOT / "examples/digits/digits_d0.safetensors"
    model, scenes = WORK / "digits.onnx", WORK / "scenes"
    run(BIN / "effdet-export", "--weights", weights, model)
    made = ("--split", "test", "--seed", 3, "--count", 4, scenes)
    run(sys.executable, "examples/digits/scenes.py", *made)
    found = []
    for folder in (python.parent, BIN):
        output = WORK / f"found{len(found)}"
        # Run outside the clone: inside it Python would import the package from there.
        command = ("detect", model, scenes / "images", "--output", output)
        run(folder / "effdet-deploy", *command, directory=WORK)
        images = json.loads((output / "detections.json").read_text(encoding="utf-8"))["images"]
        found.append([each["detections"] for each in images])
    require(
        all(found[0]) and found[0] == found[1],
        "The installed wheel finds other detections, or there are none to compare.",
    )
    shown = run(python.parent / "effdet-deploy", "--version", directory=WORK)
    require(shown.split() == ["effdet-deploy", __version__], f"The version shown is {shown}.")


def list_materials(path: Path) -> None:
    """Write the list of pinned packages as a CycloneDX file (a bill of materials)."""
    options = ("--pyproject", "pyproject.toml", "--output-reproducible", "--validate")
    tool = (sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements")
    run(*tool, *options, "-o", path, "constraints.txt")
    document = json.loads(path.read_text(encoding="utf-8"))
    # The tool does not read the version, which pyproject.toml takes from another file.
    document["metadata"]["component"]["version"] = __version__
    path.write_text(json.dumps(document, indent=2), encoding="utf-8")
    pins = [each for each in (ROOT / "constraints.txt").read_text().splitlines() if "==" in each]
    require(len(document["components"]) == len(pins), "The list of materials is not complete.")


if __name__ == "__main__":
    sys.exit(main())
