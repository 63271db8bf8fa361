"""The table in docs/tensorrt.md is made from the lists that builds write."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "scripts" / "engine_table.py"


def build(name, precision, batch, seconds, size):
    fields = {"name": name, "precision": precision, "batch": batch}
    return json.dumps(fields | {"seconds": seconds, "size": size})


def test_every_configuration_is_a_row_and_the_last_build_of_each_counts(tmp_path, monkeypatch):
    described = importlib.util.spec_from_file_location("engine_table", SCRIPT)
    script = importlib.util.module_from_spec(described)
    described.loader.exec_module(script)
    document = tmp_path / "tensorrt.md"
    document.write_text(f"before\n{script.BEGIN}old\n{script.END}\nafter\n")
    monkeypatch.setattr(script, "DOCUMENT", document)
    lists = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    lists[0].write_text(
        f"{build('b', 'fp32', 'fixed', 9.0, 1e6)}\n{build('b', 'fp32', 'fixed', 4.0, 2e6)}\n"
    )
    lists[1].write_text(f"{build('a', 'int8', 'fixed', 5.4, 3.25e6)}\n")

    assert script.main([str(each) for each in lists]) == 0

    text = document.read_text()
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    rows = [line for line in text.splitlines() if line.startswith(("| a", "| b"))]
    assert rows == ["| a |  |  |  |  | 5 s, 3.2 MB |", "| b | 4 s, 2.0 MB |  |  |  |  |"]
