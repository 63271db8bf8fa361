"""What reaches a terminal: text, and nothing that the terminal would obey."""

from __future__ import annotations

import json

import pytest
from rich.table import Table

from effdet_deploy.cli import console, main
from tests.onnx_models import detector_spec, write_tiny

ESCAPES = ["\x1b[2J", "\x1b]0;title\x07", "\x9b31m", "\u202eexe.gpj", "\u2066x\u2069", "a\x08b"]


@pytest.mark.parametrize("escape", ESCAPES)
def test_no_control_character_of_a_name_reaches_the_terminal(escape, capsys):
    """A name in a stranger's file could rewrite the screen otherwise."""
    table = Table(escape)
    table.add_row(escape)
    console.stdout().print(table)
    console.note(f"the class '{escape}'")
    console.report_error(escape, escape)
    written = "".join(capsys.readouterr())
    assert escape not in written
    for character in escape:
        assert character.isprintable() or character not in written


def test_colors_and_line_feeds_of_our_own_stay(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    console.report_error("one\ntwo", "")
    assert "one\ntwo" in capsys.readouterr().err


def test_a_file_name_that_is_not_utf_8_is_written_to_json(tmp_path):
    target = tmp_path / "result.json"
    console.write_json(target, {"file": b"caf\xe9.png".decode("utf-8", "surrogateescape")})
    assert json.loads(target.read_text(encoding="utf-8")) == {"file": "caf\udce9.png"}


def test_a_terminal_of_zero_columns_still_shows_the_result(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "0")
    model = write_tiny(tmp_path / "model.onnx", detector_spec())
    assert main(["inspect", str(model)]) == 0
    assert "detection_boxes" in capsys.readouterr().out
