"""The Dockerfiles in containers/: what hadolint, which `make dist` runs, cannot check."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from effdet_deploy import __version__

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "containers").glob("*.Dockerfile"))


def instructions(path: Path) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", path.read_text(encoding="utf-8"))
    lines = (each for each in text.splitlines() if each and not each.startswith("#"))
    return [(name, rest) for name, _, rest in (each.partition(" ") for each in lines)]


@pytest.mark.parametrize("path", RECIPES, ids=lambda each: each.stem)
def test_a_recipe_installs_this_version_for_an_ordinary_user(path):
    found = instructions(path)
    said = dict(found)
    assert said["ARG"] == f"VERSION={__version__}"
    assert re.fullmatch(r"python:3\.\d+-slim", said["FROM"])
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", said["USER"])
    assert [name for name, _ in found].index("USER") < [name for name, _ in found].index("CMD")


@pytest.mark.parametrize("path", RECIPES, ids=lambda each: each.stem)
def test_what_a_recipe_copies_reaches_the_builder(path):
    """.dockerignore lets nothing reach the builder but the files that it names."""
    let_in = {each[1:] for each in (ROOT / ".dockerignore").read_text().split() if each[0] == "!"}
    copied = [each.split()[:-1] for name, each in instructions(path) if name == "COPY"]
    assert {name for names in copied for name in names} == let_in
    assert (ROOT / "constraints.txt").is_file()


def test_both_images_have_a_recipe():
    assert [each.stem for each in RECIPES] == ["export", "run"]
