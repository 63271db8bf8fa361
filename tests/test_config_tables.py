"""The tables of all configurations in docs/ are made from the lists that tests write."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "config_tables.py"


@pytest.fixture
def script(tmp_path, monkeypatch):
    described = importlib.util.spec_from_file_location("config_tables", SCRIPT)
    module = importlib.util.module_from_spec(described)
    # A dataclass looks up its module in sys.modules.
    monkeypatch.setitem(sys.modules, "config_tables", module)
    described.loader.exec_module(module)
    monkeypatch.setattr(module, "DOCS", tmp_path)
    for kind, table in module.TABLES.items():
        page = f"before\n<!-- {kind}-table -->\nold\n<!-- /{kind}-table -->\nafter\n"
        (tmp_path / table.page).write_text(page)
    return module


def rows_of(page: Path) -> list[str]:
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    return [line for line in text.splitlines() if line.startswith(("| a", "| b"))]


def build(name, precision, batch, seconds, size):
    fields = {"name": name, "precision": precision, "batch": batch}
    return json.dumps(fields | {"seconds": seconds, "size": size})


def test_every_configuration_is_a_row_and_the_last_build_of_each_counts(tmp_path, script):
    lists = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    lists[0].write_text(
        f"{build('b', 'fp32', 'fixed', 9.0, 1e6)}\n{build('b', 'fp32', 'fixed', 4.0, 2e6)}\n"
    )
    lists[1].write_text(f"{build('a', 'int8', 'fixed', 5.4, 3.25e6)}\n")

    assert script.main(["engines", *map(str, lists)]) == 0

    assert rows_of(tmp_path / "tensorrt.md") == [
        "| a |  |  |  |  | 5 s, 3.2 MB |",
        "| b | 4 s, 2.0 MB |  |  |  |  |",
    ]


def test_what_an_fp16_file_costs_stands_beside_what_fp16_costs_the_network(tmp_path, script):
    line = {
        "name": "a",
        "target": "tensorrt",
        "alone": {"class_logits": 50.04, "box_regression": 45.0},
        "file": {"class_logits": 53.0, "box_regression": 47.06},
        "kept_alone": 0.99,
        "kept": 0.995,
    }
    listed = tmp_path / "fp16.jsonl"
    listed.write_text(json.dumps(line) + "\n")

    assert script.main(["fp16", str(listed)]) == 0

    assert rows_of(tmp_path / "verification.md") == [
        "| a | 50.0, 45.0 | 53.0, 47.1 |  | 99.0% | 99.5% |  |"
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fp16"], "the following arguments are required: files"),
        (["fp32", "builds.jsonl"], "invalid choice: 'fp32'"),
        (["fp16", "absent.jsonl"], "can't open 'absent.jsonl'"),
    ],
)
def test_no_table_is_replaced_if_a_list_is_missing(tmp_path, script, capsys, arguments, said):
    with pytest.raises(SystemExit):
        script.main(arguments)
    assert said in capsys.readouterr().err
    assert "old" in (tmp_path / "verification.md").read_text()
