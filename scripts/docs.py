"""Build the documentation site without the network: ``make docs``.

The pages of docs/ are also read on GitHub. Here they are copied to build/docs/pages, and more pages
are generated beside them: the command line, the public names in Python, and every file of the
repository that a page links to. A broken link or a public name without a docstring fails the build.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import command_reference
import griffe

import effdet_deploy

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES, SITE = ROOT / "build/docs/pages", ROOT / "build/docs/site"
MOVED = {ROOT / "CHANGELOG.md": "changelog.md", ROOT / "CONTRIBUTING.md": "contributing.md"}
LANGUAGES = {".py": "python", ".hpp": "cpp", ".h": "c", ".rs": "rust", ".md": "markdown"}
"""The language of a linked file by its suffix; for other suffixes the suffix is the language."""
PYTHON = {
    "Export": ("export", "ExportOptions", "exporters.delivery.Artifact"),
    "Run": (
        *("load", "runtimes.load_runtime", "Detector", "detection.images.load_image"),
        *("Detections", "DetectorSpec"),
    ),
    "Compare": ("compare", "parity.verdict.ParityReport"),
    "Engines": ("exporters.tensorrt.engine.build_engine", "exporters.build_options.BuildOptions"),
    "Errors": ("errors",),
}
"""The public names of the page about Python, under its headings and in its order."""
LINK = re.compile(r"(?<=\]\()([^)\s#]+)")
ROLE = re.compile(r":(?:class|func|meth|data|attr|mod):(?=<code>)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def main() -> int:
    """Write the pages, build the site, and report everything that is broken."""
    shutil.rmtree(PAGES.parent, ignore_errors=True)
    faults = undocumented()
    stage()
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    built = subprocess.run(command, cwd=ROOT, check=False)
    for path in SITE.glob("reference/*.html"):
        # mkdocstrings leaves the roles of reStructuredText as they are.
        path.write_text(ROLE.sub("", path.read_text("utf-8")), "utf-8")
    faults += broken_links()
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults or built.returncode != 0:
        return 1
    print(f"To read it: python -m http.server --directory {SITE.relative_to(ROOT)}")
    return 0


def stage() -> None:
    """Write every page into build/docs/pages."""
    for folder in ("images", "benchmarks"):
        shutil.copytree(DOCS / folder, PAGES / folder)
    shutil.copy(DOCS / "site.css", PAGES)
    for path in DOCS.glob("*.md"):
        write(path.name, path)
    for path, name in MOVED.items():
        write(name, path)
    (PAGES / "reference").mkdir()
    (PAGES / "reference/command-line.md").write_text(command_reference.page(), "utf-8")
    (PAGES / "reference/python.md").write_text(python_page(), "utf-8")


def write(name: str, source: Path) -> None:
    """Write the page ``name`` from a file whose links are relative to its own folder."""
    text = source.read_text("utf-8")
    # Python-Markdown, unlike GitHub, needs an empty line between a comment and the table after it.
    text = re.sub(r"^(<!-- .* -->)$", r"\n\1\n", text, flags=re.MULTILINE)
    parts, at = [], 0
    for start, end in (*(each.span() for each in FENCED.finditer(text)), (len(text), len(text))):
        parts.append(LINK.sub(lambda link: linked(link[0], source), text[at:start]))
        parts.append(text[start:end])
        at = end
    (PAGES / name).write_text("".join(parts), "utf-8")


def linked(link: str, source: Path) -> str:
    """Return where a link of ``source`` leads on the site; write a page for a file without one."""
    target = (source.parent / link).resolve()
    if urlsplit(link).scheme or not target.is_relative_to(ROOT):
        return link
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    if target in MOVED:
        return MOVED[target]
    shown = f"files/{target.relative_to(ROOT)}.md"
    if target.is_file() and not (PAGES / shown).exists():
        (PAGES / shown).parent.mkdir(parents=True, exist_ok=True)
        language = LANGUAGES.get(target.suffix, target.suffix.lstrip("."))
        title = f"# {target.name}\n\nThe file `{target.relative_to(ROOT)}` of the repository.\n\n"
        text = target.read_text("utf-8")
        (PAGES / shown).write_text(f"{title}````{language}\n{text}\n````\n", "utf-8")
    return shown


def python_page() -> str:
    """Return the reference of the public names, which mkdocstrings fills from their docstrings."""
    placed = {name for names in PYTHON.values() for name in names}
    missing = {*effdet_deploy.__all__} - {"__version__"} - placed
    if missing:
        listed = ", ".join(sorted(missing))
        raise SystemExit(f"scripts/docs.py: the table PYTHON has no heading for {listed}.")
    lines = ["# Python\n", "`import effdet_deploy` imports neither torch nor a runtime.\n"]
    for title, names in PYTHON.items():
        lines.append(f"## {title}\n")
        for name in names:
            lines.append(f"::: effdet_deploy.{name}\n    options:\n      heading_level: 3\n")
            if name == "ExportOptions":
                fields = dataclasses.fields(effdet_deploy.ExportOptions)
                lines.append(command_reference.fields_list([each.name for each in fields]))
    return "\n".join(lines)


def undocumented() -> list[str]:
    """Return a line for each public name of the reference that has no docstring.

    A field may also be described under "Attributes:" of its class, or by the option of that name.
    """
    package = griffe.load("effdet_deploy", search_paths=[ROOT], allow_inspection=False)
    found = []
    for name in (each for names in PYTHON.values() for each in names):
        about = package[name]
        about = about.final_target if about.is_alias else about
        members = (each for each in about.members.values() if not each.is_alias)
        public = [each for each in members if not each.name.startswith("_")]
        stated = about.docstring.value if about.docstring else ""
        for each in (about, *public):
            said = f"{each.name}:" in stated or each.name in command_reference.FIELDS
            if not each.has_docstring and not said:
                found.append(f"{each.path} has no docstring.")
    return found


class _Page(HTMLParser):
    """The links of a built page, the addresses that it loads, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Store the links, loaded addresses and anchors of a tag."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if "src" in given:
            self.loads.append(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preconnect", "preload"):
            self.loads.append(given.get("href", ""))


def broken_links() -> list[str]:
    """Return a line for each link of the built site that leads nowhere or loads from elsewhere."""
    pages = {path: _Page(path.read_text("utf-8")) for path in SITE.rglob("*.html")}
    # The links of 404.html are absolute, because a server may show it under any address.
    read = {path: page for path, page in pages.items() if path.name != "404.html"}
    found = [] if read else ["No page was built."]
    for path, page in read.items():
        outside = (each for each in page.loads if "//" in each)
        found += [f"{path.name} loads {each} from the network." for each in outside]
        for link in (*page.links, *page.loads):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            known = pages[target].anchors if target in pages else {""}
            if not target.is_file() or unquote(parts.fragment) not in {"", *known}:
                found.append(f"{path.relative_to(SITE)} links to {link}, which is not there.")
    return sorted(set(found))


if __name__ == "__main__":
    sys.exit(main())
