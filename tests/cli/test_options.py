"""The library's fields and the commands' options are one list, with one set of defaults."""

from __future__ import annotations

from dataclasses import fields

import pytest
import typer

from effdet_deploy.cli import build, export, options
from effdet_deploy.exporters.build_options import BuildOptions
from effdet_deploy.exporters.option_text import parse_candidates
from effdet_deploy.exporters.options import ExportOptions

# Fields without an option of their name: --fp16, --config or the command itself sets them.
ELSEWHERE = {"overrides", "precision", "build", "command"}


def parameters(command):
    app = typer.Typer(add_completion=False)
    app.command()(command)
    return {each.name: each for each in typer.main.get_command(app).params}


def test_every_field_of_an_export_is_an_option_of_the_command():
    names = {each.name for each in fields(ExportOptions)} - ELSEWHERE
    assert names | {each.name for each in fields(BuildOptions)} <= parameters(export.run).keys()


def test_every_field_of_a_build_is_an_option_of_the_command():
    assert {each.name for each in fields(BuildOptions)} <= parameters(build.run).keys()


@pytest.mark.parametrize("command", [export.run, build.run])
def test_the_default_of_an_option_is_that_of_its_field(command):
    known = vars(ExportOptions()) | vars(BuildOptions())
    shown = parameters(command)
    for name in known.keys() & shown.keys() - {"batch", "candidates"}:
        assert shown[name].default == known[name], name
    assert parameters(export.run)["batch"].default == str(ExportOptions().batch)
    assert parse_candidates(parameters(export.run)["candidates"].default) is None


def test_options_that_are_left_out_make_the_default_export():
    given = {name: each.default for name, each in parameters(export.run).items()}
    made = export.export_options(given)
    assert made == ExportOptions(command=made.command)


@pytest.mark.parametrize("text", ["0", "x", "1,,2", "-1", "1.5", "²"])
def test_numbers_are_whole_and_positive(text):
    with pytest.raises(options.UsageError, match="--batch takes whole numbers from 1"):
        options.positive_numbers("--batch", text)


def test_a_repeated_number_is_taken_once():
    assert options.positive_numbers("--batch", "8, 1,8") == (8, 1)
    assert options.positive_numbers("--batch", "") == ()
