"""Every option, extra, module and file that a message names exists: a wrong name helps nobody."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from effdet_deploy.cli import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "effdet_deploy"
OF_OTHERS = (
    "effdet_deploy/batch/cluster.py",
    "effdet_deploy/bundles/deepstream.py",
    "effdet_deploy/bundles/triton.py",
    "effdet_deploy/exporters/tensorrt/other_machine.py",
)
"""Files that write command lines of ray, trtexec and tritonserver."""


def texts() -> Iterator[tuple[str, str]]:
    """Yield every text of the package that is not documentation, with the file it is in."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        described = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text and id(node) not in described:
                yield str(path.relative_to(ROOT)), node.value


def options() -> set[str]:
    """Return the options of all commands."""
    found = {"--version", "--help", "--debug"}
    for name in COMMANDS:
        app = typer.Typer(add_completion=False)
        app.command()(importlib.import_module(f"effdet_deploy.cli.{name}").run)
        for each in typer.main.get_command(app).params:
            found |= {*each.opts, *each.secondary_opts}
    return found


def named(pattern: str) -> dict[str, str]:
    """Return every match of ``pattern`` in the package's texts, and a file that holds it."""
    return {found: path for path, text in texts() for found in re.findall(pattern, text)}


def test_every_option_in_a_message_exists():
    known = options()
    found = named(r"--[a-z][a-z0-9-]*[a-z0-9]")
    assert len(found) > 40
    unknown = {each: path for each, path in found.items() if each not in known}
    assert {each: path for each, path in unknown.items() if path not in OF_OTHERS} == {}


def test_every_extra_in_a_message_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert named(r"effdet-deploy\[([\w-]+)\]").keys() <= extras["optional-dependencies"].keys()


def test_every_python_name_in_a_message_exists():
    for dotted in named(r"effdet_deploy(?:\.\w+)+"):
        module, _, name = dotted.rpartition(".")
        if importlib.util.find_spec(dotted if module == "effdet_deploy" else module) is None:
            raise AssertionError(dotted)
        if module != "effdet_deploy" and importlib.util.find_spec(dotted) is None:
            assert hasattr(importlib.import_module(module), name), dotted


def test_every_file_in_a_message_exists():
    for path in named(r"\b(?:scripts|tools|docs|examples|benchmarks)/[\w/-]+\.\w+"):
        assert (ROOT / path).exists(), path
