"""The section on picture files, from measurements made up here."""

from __future__ import annotations

import pytest

PAGE = "# Benchmarks\n\n## D0\n\nA table.\n\n## Scaling\n\nMore.\n"


@pytest.fixture
def measured():
    rate = {"median": 18.123, "low": 17.0, "high": 19.0, "of_bound": 0.954}
    return {
        "command": "--turns 10",
        "pictures": {
            "files": 500,
            "files_a_turn": 50,
            "cost_ms": {"decode": 13.0, "letterbox": 11.0, "network": 80.0},
            "bound": rate | {"median": 19.0},
            "reading_bound": rate | {"median": 80.0},
            "rows": {
                "ours": rate,
                "effdet eager": rate | {"median": 4.0, "of_bound": 0.2},
                "ours, `--fast-decode`": rate,
                "ours at 288x512": rate,
                "Ultralytics YOLO11n at 512x512": rate,
            },
            "load": {"reasons": []},
        },
        "accuracy": [
            {
                "scenes": 500,
                "side": 1024,
                "whole_ap": 0.74,
                "fast_ap": 0.739,
                "points": -0.1,
                "low": -0.2,
                "high": 0.0,
            }
        ],
    }


def test_every_program_is_shown_with_its_rate_and_its_share_of_the_bound(measured):
    from files_section import files_section

    text = "\n".join(files_section(measured))
    assert "`python benchmarks/files.py --turns 10`" in text
    assert "| ours | 18.1 | 17.0-19.0 | 0.95 |" in text
    assert "| effdet eager | 4.0 | 17.0-19.0 | 0.20 |" in text
    # These decode less, or run another network, than the bound.
    assert "| ours, `--fast-decode` | 18.1 | 17.0-19.0 |  |" in text
    assert "| ours at 288x512 | 18.1 | 17.0-19.0 |  |" in text
    assert "| Ultralytics YOLO11n at 512x512 | 18.1 | 17.0-19.0 |  |" in text
    assert "| bound: decoding, letterbox and network | 19.0 | 17.0-19.0 |  |" in text
    assert "decode 13.0 ms, letterbox 11.0 ms, network 80.0 ms" in text
    assert "mAP 73.90 in place of 74.00, a difference of -0.10 points [-0.20, +0.00]" in text
    assert "Do not trust" not in text


def test_a_disturbed_run_is_marked_and_what_was_not_measured_is_left_out(measured):
    from files_section import files_section

    measured["pictures"]["load"]["reasons"] = ["other programs took 40%"]
    assert "**Do not trust these numbers: other programs took 40%.**" in "\n".join(
        files_section(measured)
    )
    assert files_section(None) == []
    measured["pictures"] = None
    assert "| ours |" not in "\n".join(files_section(measured))


def test_the_section_is_put_before_scaling_and_replaces_itself(measured):
    from files_section import HEADING, filled

    once = filled(PAGE, measured)
    assert once.count(HEADING) == 1
    assert once.index("A table.") < once.index(HEADING) < once.index("## Scaling")
    assert filled(once, measured) == once
    assert once.endswith("## Scaling\n\nMore.\n")
