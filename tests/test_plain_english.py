"""Texts that people read avoid phrases that readers had to read twice.

They are docstrings (also the strings under constants), help, messages and comments of the package,
and the pages of the documentation. A pattern stands here because a reader who had not seen the code
stumbled over it.
"""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import effdet_deploy

PACKAGE = Path(effdet_deploy.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md")])
BANNED = {
    r"\bis none\b": "say what it is not: 'is not a picture'",
    r"\bless one\b": "write the number or the formula",
    r"\bso many\b": "name the number: 'this many', 'at most N'",
    r"\bwithout a word\b": "write 'silently'",
    r"\bof none\b": "say 'if there are none'",
    r"\b(?:is|are) of another\b": "write 'has another' or 'belongs to another'",
    r"\b(?:Tell|Say) whether\b": "write 'Return whether'",
    r"\btold (?:what|of|how|a)\b": "write 'called with'",
    r"\bis no [a-z]": "write 'is not a'",
    r"\bare no [a-z]": "write 'are not' or 'there are no'",
    r"\bone an? [a-z]": "write 'one per'",
    r"\beach of (?:them|it)\b": "name the things",
    r"\bwhat is (?:asked|wanted|to be)\b": "use a noun",
}
ON_PAGES = {
    r"(?:\| |^)[Tt]he same(?: \||[,.;:]| over| as before)": "name the thing again",
    r"\bas (?:few|many) \w+ as (?:are|give)\b": "write 'the smallest number that …'",
    r"\b(?:does|do) so\b": "name what is done",
    r"\bwhat (?:numpy|it|this) makes of\b": "write 'what numpy computes from'",
    r"\b(?:is|are) an error that\b": "write 'is refused, and the message …'",
    r"\bbefore the work\b": "write 'at the start'",
    r"\b(?:one|name|object) a (?:line|row)\b": "write 'one per line'",
    r"\b[Oo]f an? [a-z]+ the [a-z]+ (?:is|are)\b": "begin with the subject",
}
ALLOWED = (
    *("there is no", "There is no", "there are no", "There are no", "no longer"),
    *("is no faster", "are no more"),
)
BEGINS_WITH_OF = re.compile(r"\s*Of\b")


def texts_of(path: Path) -> list[tuple[int, str, bool]]:
    """Return line, text and whether it is a docstring, for docstrings, sentences and comments."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    docs = {
        id(each.value)
        for each in ast.walk(tree)
        if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
    }
    parts = {
        id(value)
        for each in ast.walk(tree)
        if isinstance(each, ast.JoinedStr)
        for value in each.values
    }
    found = []
    for each in ast.walk(tree):
        if isinstance(each, ast.JoinedStr):
            text = "".join(
                str(value.value) if isinstance(value, ast.Constant) else "…"
                for value in each.values
            )
            found.append((each.lineno, text, False))
        elif (
            isinstance(each, ast.Constant) and isinstance(each.value, str) and id(each) not in parts
        ):
            found.append((each.lineno, each.value, id(each) in docs))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [each for each in tokens if each.type == tokenize.COMMENT]
    return found + [(each.start[0], each.string.lstrip("# "), False) for each in comments]


@pytest.mark.parametrize("path", FILES, ids=lambda each: str(each.relative_to(PACKAGE)))
def test_texts_avoid_what_readers_stumbled_over(path):
    wrong = []
    for line, text, is_doc in texts_of(path):
        plain = " ".join(text.split())
        for words in ALLOWED:
            plain = plain.replace(words, "…")
        if is_doc and BEGINS_WITH_OF.match(text):
            wrong.append(f"{path.name}:{line} begins with 'Of': {plain[:90]}")
        wrong += hits(plain, BANNED, f"{path.name}:{line}")
    assert not wrong, "\n".join(wrong)


def hits(plain: str, patterns: dict[str, str], where: str) -> list[str]:
    """Return a line for every pattern that occurs in the text."""
    found = ((advice, re.search(pattern, plain)) for pattern, advice in patterns.items())
    return [
        f"{where} '{hit[0]}' in '{plain[max(0, hit.start() - 40) : hit.end() + 40]}': {advice}"
        for advice, hit in found
        if hit
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda each: each.relative_to(ROOT).as_posix())
def test_pages_avoid_what_readers_stumbled_over(path):
    text = re.sub(
        r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    wrong = []
    for part in re.split(r"\n\n|\n(?=\||[-*] |\d+\. )", re.sub(r"`[^`]*`", "…", text)):
        plain = " ".join(part.split())
        for words in ALLOWED:
            plain = plain.replace(words, "…")
        wrong += hits(plain, BANNED | ON_PAGES, path.name)
        if re.match(r"(?:[-*] )?(?:\*\*[^*]+\*\* )?Of\b", plain):
            wrong.append(f"{path.name} begins with 'Of': {plain[:90]}")
    assert not wrong, "\n".join(wrong)
