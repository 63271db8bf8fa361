"""Each program that docs/embed.md offers is run by a test."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "embed.md"
LINKS = re.findall(r"\]\(([^)]+)\)", DOCUMENT.read_text(encoding="utf-8"))
# The test file that runs each program and compares its detections with those expected.
TESTS = {
    "detect.c": "tests/native/test_examples.py",
    "camera.cpp": "tests/native/test_examples.py",
    "main.rs": "tests/native/test_examples.py",
    "detect.js": "tests/native/test_examples.py",
    "effdet_native.py": "tests/native/test_examples.py",
    "effdet.js": "tests/examples/test_web.py",
    "client.py": "tests/bundles/test_triton.py",
    "nvdsinfer_effdet.cpp": "tests/bundles/test_deepstream.py",
}
SHOWN_BY = {
    "main.rs": 'examples" / "rust',
    "effdet.js": "web_check.html",
    "nvdsinfer_effdet.cpp": "NvDsInferParseEffdet",
}


def test_each_program_is_run_by_a_test():
    programs = {Path(link).name for link in LINKS if Path(link).suffix not in (".md", ".png")}
    assert programs == set(TESTS)
    for name, test in TESTS.items():
        text = (ROOT / test).read_text(encoding="utf-8")
        assert SHOWN_BY.get(name, name) in text, name
