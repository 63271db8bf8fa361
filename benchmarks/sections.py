"""Parts that the sections of the document share, and a function that replaces a section."""

from __future__ import annotations

import re
from typing import Any

from effdet_deploy.benchmark.ceilings import Ceilings

NO_BF16 = """This CPU has no BF16 instructions: the rows of BF16 show what the conversion to BF16
costs, not what BF16 gains.
"""


def with_section(page: str, title: str, section: str, before: str = "") -> str:
    """Return ``page`` with ``section`` in place of the one whose heading begins with ``title``.

    If the page has no such section, it is put before the heading ``before``, or at the end.
    """
    section = section.rstrip("\n") + "\n"
    pattern = re.compile(rf"^{re.escape(title)}.*?(?=^##? |\Z)", re.MULTILINE | re.DOTALL)
    if pattern.search(page) is None:
        start, heading, rest = page.partition(before) if before else (page, "", "")
        return f"{start.rstrip()}\n\n{section}" + (f"\n{heading}{rest}" if heading else "")
    return pattern.sub(lambda _: f"{section}\n", page).rstrip("\n") + "\n"


def run_lines(document: dict[str, Any]) -> list[str]:
    """Return the command, the machine and the versions of a run of ``latency.py``."""
    has_bf16 = any("bf16" in each for each in document["machine"].split())
    return [
        f"Command: `python benchmarks/latency.py {document['command']}`\n",
        f"Machine: {document['machine']}.\n",
        *([] if has_bf16 else [NO_BF16]),
        versions_line(document),
        f"Ceilings, measured here: {Ceilings(**document['ceilings'])}.\n",
    ]


def versions_line(document: dict[str, Any]) -> str:
    """Return the line that names the packages of a measurement."""
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    return f"Versions: {versions}.\n"


def disturbance(load: dict[str, Any]) -> str:
    """Return a sentence that says how much other programs disturbed a measurement."""
    if reasons := load["reasons"]:
        return f"**Do not trust these numbers: {' and '.join(reasons)}.**"
    return f"Other programs took {load['other_share']:.1%} of the processors' time."
