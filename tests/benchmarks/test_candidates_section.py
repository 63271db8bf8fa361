"""The section on candidates, from measurements made up here."""

from __future__ import annotations

import pytest

PAGE = "# Benchmarks\n\n## D0\n\nA table.\n\n## From files to boxes\n\nMore.\n\n## Scaling\n"


@pytest.fixture
def measured():
    share = {"engine": "ours", "candidates": 1000, "rows": 100, "median": 0.05, "low": 0.04}
    row = {"name": "ours, ONNX Runtime", "samples_ms": [50.0] * 9}
    eager = {"name": "effdet eager", "samples_ms": [200.0] * 9}
    table = {"variant": "d0", "image_size": [512, 512], "threads": 2, "part": "end to end"}
    table |= {"batch": 1, "rows": [row, eager], "outside": {}, "load": {"reasons": ["noise"]}}
    return {
        "command": "--turns 11",
        "shares": [share | {"high": 0.06}, share | {"high": 0.2, "candidates": 5000}],
        "load": {"reasons": [], "other_share": 0.013},
        "latency": {
            "command": "--variants d0",
            "machine": "CPU, avx512_bf16",
            "versions": {"numpy": "2"},
            "ceilings": {"threads": 2, "flops": 1e11, "bandwidth": 1e10},
            "tables": [table],
        },
    }


def test_shares_and_claims_are_shown_with_the_commands_that_measured_them(measured):
    from candidates_section import candidates_section

    text = "\n".join(candidates_section(measured))
    assert "`python benchmarks/candidates.py --turns 11`" in text
    assert "| 5000 | 5.0% (4.0% to 20.0%) |" in text
    assert "Other programs took 1.3% of the processors' time." in text
    assert "`python benchmarks/latency.py --variants d0`" in text
    assert "| ours, ONNX Runtime against effdet eager | 4.00x" in text
    assert "In short" not in text
    assert text.endswith("**Do not trust these numbers: noise.**\n")
    del measured["latency"]
    assert "effdet eager" not in "\n".join(candidates_section(measured))
    assert candidates_section(None) == []


def test_the_section_replaces_its_older_version(measured):
    from candidates_section import filled

    page = filled(PAGE, measured)
    assert page.index("## Cost of candidates") < page.index("## From files to boxes")
    assert filled(page, measured) == page
    measured["load"]["reasons"] = ["other programs took 40%"]
    assert "Do not trust these numbers: other programs took 40%" in filled(page, measured)
