"""A benchmark without runs, or on a device that is missing, is refused.

A machine that is busy with something else gets no numbers either.
"""

from __future__ import annotations

import pytest

from effdet_deploy.benchmark.machine import LoadWatch
from effdet_deploy.cli import main
from tests.onnx_models import write_tiny

QUICK = ("--runs", "7", "--max-runs", "7")


@pytest.fixture
def model(tmp_path):
    return str(write_tiny(tmp_path / "tiny.onnx"))


def refused(capsys, arguments, code):
    assert main(["bench", *arguments]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize("runs", ["0", "-3"])
def test_zero_or_fewer_runs_are_refused(model, capsys, runs):
    assert "at least one run" in refused(capsys, [model, "--runs", runs, "--max-runs", runs], 2)


@pytest.mark.parametrize("option", ["--batch", "--threads"])
@pytest.mark.parametrize("value", ["0", "1,,2", "two"])
def test_a_batch_or_thread_count_that_is_not_a_whole_number_is_refused(
    model, capsys, option, value
):
    assert f"{option} takes whole numbers" in refused(capsys, [model, option, value], 2)


def test_an_absent_device_is_refused_and_no_other_is_timed(model, capsys):
    message = refused(capsys, [model, "--device", "cuda", *QUICK], 4)
    assert "'cuda' was asked for" in message


def test_a_busy_machine_gets_no_number_and_leaves_no_file(model, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(LoadWatch, "_throttle_events", _growing())
    target = tmp_path / "result.json"
    message = refused(capsys, [model, *QUICK, "--json", str(target)], 4)
    assert "The numbers measured here are not reliable" in message
    assert not target.exists()


def test_a_busy_machine_gets_marked_numbers_on_request(model, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(LoadWatch, "_throttle_events", _growing())
    target = tmp_path / "result.md"
    assert main(["bench", model, *QUICK, "--under-load", "--markdown", str(target)]) == 0
    assert "DO NOT TRUST" in capsys.readouterr().err
    assert "DO NOT TRUST" in target.read_text()


def _growing():
    """Counters of a processor that is throttled between any two readings."""
    looks = iter(range(1000))
    return lambda _watch: next(looks)
