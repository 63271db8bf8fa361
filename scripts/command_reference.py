"""Write the command line's page: every command with its arguments, options and their defaults."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from effdet_deploy.cli import COMMANDS
from effdet_deploy.cli.options import EXPORT

if TYPE_CHECKING:
    from collections.abc import Iterator


METAVARS = {bool: "", str: "NAME", int: "N", float: "X", Path: "PATH"}
"""What stands for an option's value in the page if the option has no metavar."""
IN_PYTHON_ALONE = {
    "overrides": "The config fields to override, which `--config` reads from a file.",
    "precision": '"fp32", "fp16" or "int8".',
    "build": "The options of an engine, a `BuildOptions`.",
    "command": "The command line to store in the spec.",
}
"""Fields of ExportOptions and BuildOptions that are not options of the command line."""
FIELDS = {*EXPORT, *IN_PYTHON_ALONE}


def command(name: str) -> Any:
    """Return the parser of a command, as ``effdet-deploy`` builds it."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name)(importlib.import_module(f"effdet_deploy.cli.{name}").run)
    return typer.main.get_command(app)


def page() -> str:
    """Return the page in Markdown."""
    return "\n".join(_lines())


def fields_list(names: list[str]) -> str:
    """Return a list of the fields of an options dataclass, with the help of the command line."""
    options = {each.name: each for each in command("export").params}
    lines = []
    for name in names:
        if name in IN_PYTHON_ALONE:
            lines.append(f"`{name}`\n:   {IN_PYTHON_ALONE[name]}\n")
        else:
            option = options[name]
            lines.append(f"`{name}` ({_names(option)})\n:   {option.help}\n")
    return "\n".join(lines)


def _lines() -> Iterator[str]:
    yield "# Command line\n"
    yield "`effdet-export …` is the same as `effdet-deploy export …`. Results go to standard"
    yield "output, progress to standard error. `--debug` shows the traceback of an error.\n"
    for name in COMMANDS:
        parser = command(name)
        arguments = (each for each in parser.params if each.param_type_name == "argument")
        usage = " ".join(each.metavar for each in arguments)
        yield f"## effdet-deploy {name}\n"
        yield f"```\neffdet-deploy {name} [OPTIONS] {usage}".rstrip() + "\n```\n"
        yield f"{parser.help}\n"
        for each in parser.params:
            is_option = each.param_type_name == "option"
            term = _names(each) + _default(each) if is_option else f"`{each.metavar}`"
            yield f"{term}\n:   {each.help}\n"


def _names(option: Any) -> str:
    kind = option.metavar or METAVARS[option.type_descriptor.annotation]
    value = "" if option.is_flag else f" {kind}"
    return f"`{'` or `'.join((*option.opts, *option.secondary_opts))}{value}`"


def _default(option: Any) -> str:
    default = option.default
    if option.secondary_opts:
        default = option.opts[0] if default else option.secondary_opts[0]
    return "" if default in (None, (), "") or default is False else f", default `{default}`"
