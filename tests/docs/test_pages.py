"""Every link, heading and file that a page names exists, and every command line is valid."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from effdet_deploy.cli import COMMANDS
from effdet_deploy.cli.export import export_options

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *map(ROOT.joinpath, ("README.md", "CHANGELOG.md"))]
PAGES += [ROOT / "CONTRIBUTING.md", ROOT / "examples/digits/README.md"]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMES = {each.relative_to(ROOT).as_posix(): each for each in PAGES}
MADE = {"changelog.md", "contributing.md", "reference/command-line.md", "reference/python.md"}
"""Pages of the site that scripts/docs.py writes."""


def prose(path: Path) -> str:
    """Return a page without its code blocks."""
    return FENCED.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub and the site give the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", each.replace("`", "").lower()) for each in headings)
    return {each.strip().replace(" ", "-") for each in plain}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_to_a_file_and_a_heading(name):
    page = NAMES[name]
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


@pytest.mark.parametrize("name", NAMES)
def test_every_file_that_a_page_names_exists(name):
    folders, suffixes = (
        "docs|scripts|examples|benchmarks|tests|containers",
        "py|md|sh|json|Dockerfile",
    )
    text = NAMES[name].read_text(encoding="utf-8")
    named = re.findall(rf"(?<![\w/.-])(?:{folders})/[\w/.-]+\.(?:{suffixes})\b", text)
    assert [each for each in named if not (ROOT / each).exists()] == []


def test_the_navigation_names_every_page():
    # The file has a Python tag, which only Zensical resolves.
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").replace("!!python", "#")

    def pages(tree):
        for each in tree if isinstance(tree, list) else tree.values():
            yield from [each] if isinstance(each, str) else pages(each)

    named = list(pages(yaml.safe_load(text)["nav"]))
    assert len(named) == len(set(named))
    assert set(named) == {each.name for each in (ROOT / "docs").glob("*.md")} | MADE


def calls(lines: list[str]) -> list[str]:
    """Return the command lines of our two programs, without the shell's pipes and redirections."""
    parts = (each for line in lines for each in re.split(r"&&|\|\||;", line.split(" #")[0]))
    return [each.strip() for each in parts if re.match(r"\s*effdet-(export|deploy) ", each)]


def in_blocks(text: str) -> list[str]:
    """Return the command lines in the code blocks of a page."""
    blocks = (block for language, block in FENCED.findall(text) if language in ("", "sh"))
    return calls([line for each in blocks for line in re.sub(r"\\\n\s*", "", each).splitlines()])


def in_sentences(text: str) -> list[str]:
    """Return the command lines that a page quotes within its sentences."""
    return calls(
        [" ".join(each.split()) for each in re.findall(r"`([^`]+)`", FENCED.sub("", text))]
    )


def found(lines) -> list:
    return [
        pytest.param(line, id=f"{name}: {line}")
        for name, path in NAMES.items()
        for line in lines(path.read_text(encoding="utf-8"))
    ]


def parsed(line: str, *, whole: bool):
    """Parse a command line as the program does; if not ``whole``, it may lack arguments."""
    words = shlex.split(line)
    command = "export" if words.pop(0) == "effdet-export" else words.pop(0)
    app = typer.Typer(add_completion=False)
    app.command()(importlib.import_module(f"effdet_deploy.cli.{command}").run)
    parser = typer.main.get_command(app)
    known = {name for each in parser.params for name in (*each.opts, *each.secondary_opts)}
    assert {each.partition("=")[0] for each in words if each.startswith("--")} <= {*known, "--help"}
    return command, parser.make_context(command, words, resilient_parsing=not whole).params


@pytest.mark.parametrize("line", found(in_blocks))
def test_a_command_in_a_block_is_valid_as_it_stands(line):
    command, given = parsed(line.replace("…", ""), whole="…" not in line)
    if command == "export" and "…" not in line:
        # Raises an error if options contradict each other or need another option.
        export_options(given)


@pytest.mark.parametrize("line", found(in_sentences))
def test_a_command_in_a_sentence_has_options_that_exist(line):
    parsed(line.replace("\\|", "|").replace("…", ""), whole=False)


def test_the_pages_show_every_command():
    shown = {each.values[0].split()[1] for each in found(in_blocks) if "deploy" in each.values[0]}
    assert shown >= {*COMMANDS} - {"export"}
