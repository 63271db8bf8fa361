"""Every test and message in docs/faults.md exists, and no test file of this folder is missing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS.parent / "effdet_deploy"
PAGE = TESTS.parent / "docs" / "faults.md"
CODES = re.compile(r"\| (?:[0-5]|130)[^|]* \| `([\w/]+\.py)::(test_\w+)` \|$")


def rows():
    return [
        line
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith("| What was done")
    ]


def test_every_row_names_an_exit_code_and_a_test_that_exists():
    assert len(rows()) > 80
    for row in rows():
        named = CODES.search(row)
        assert named, row
        text = (TESTS / named[1]).read_text(encoding="utf-8")
        assert f"\ndef {named[2]}(" in text, row


def test_every_file_of_faults_is_in_the_matrix():
    files = {f"faults/{each.name}" for each in (TESTS / "faults").glob("test_*.py")}
    named = {CODES.search(row)[1] for row in rows()}
    assert files - named == {"faults/test_matrix.py"}


def templates():
    """Yield a pattern for every text in the package's code that has three words or more.

    Where the package inserts a value, the pattern matches any text.
    """
    for path in PACKAGE.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        inside = {
            id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values
        }
        for node in nodes:
            if id(node) in inside:
                continue
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            texts = [
                each.value if isinstance(each, ast.Constant) else "{}"
                for each in parts
                if isinstance(each, ast.Constant | ast.FormattedValue)
            ]
            if all(isinstance(each, str) for each in texts):
                literal = re.split(r"\{\w*\}", "".join(texts).rstrip("."))
                if len(" ".join(literal).split()) >= 3 and len("".join(literal)) > 15:
                    yield re.compile(".+".join(map(re.escape, literal)))


def test_every_message_is_one_that_the_package_has():
    known = list(templates())
    messages = [row.split(" | ")[1] for row in rows()]
    said = [each for each in messages if not each.startswith(("nothing", "the "))]
    assert [each for each in said if not any(one.search(each) for one in known)] == []
