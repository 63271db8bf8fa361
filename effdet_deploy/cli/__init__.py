"""The command line: one module per command, which is imported only when it runs.

A command is one line in :data:`COMMANDS` and one module ``effdet_deploy.cli.<name>``, whose
function ``run`` is annotated for Typer.
"""

from __future__ import annotations

import importlib
import io
import itertools
import os
import re
import sys
import traceback
import warnings
from typing import TYPE_CHECKING, Annotated

import typer

from effdet_deploy._version import __version__
from effdet_deploy.cli.console import mute, note, report_error
from effdet_deploy.cli.ending import INTERRUPTED, ended_as_by_ctrl_c
from effdet_deploy.errors import (
    EffdetDeployError,
    EffdetDeployWarning,
    InputError,
    ResourceError,
    UnknownNameError,
    UsageError,
)
from effdet_deploy.files import DISK_FULL

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

COMMANDS = {
    "export": "Turn a checkpoint into one verified graph: uint8 image in, boxes out.",
    "build": "Build a TensorRT engine from an exported ONNX model.",
    "check": "Check whether TensorRT accepts an ONNX model.",
    "detect": "Detect objects in pictures with an exported model.",
    "batch": "Detect objects in millions of pictures with Ray; write Parquet files.",
    "compare": "Compare exported models with a reference, layer by layer if asked.",
    "bench": "Measure how fast exported models run on this machine.",
    "eval": "Measure the mAP of exported models on annotated pictures.",
    "bundle": "Put an exported model into a folder that Triton or DeepStream loads.",
    "inspect": "Show what an exported model says about itself.",
    "doctor": "Show what is installed on this machine and what is missing.",
}
"""Every command and its line in the help; the full help of a command is in its module."""

_NO_MEMORY = re.compile("can't allocate memory|not enough memory|out of memory", re.IGNORECASE)
"""The words of torch's RuntimeError when memory runs out."""
_ISSUES = "the issue tracker of effdet-deploy"
_EPILOG = "Add --debug to see the traceback of an error."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``effdet-deploy`` and return its exit code."""
    return _run("effdet-deploy", tuple(COMMANDS), arguments)


def export_main(arguments: Sequence[str] | None = None) -> int:
    """Run ``effdet-export``, which is ``effdet-deploy export``."""
    return _run("effdet-export", ("export",), arguments)


def _run(program: str, names: tuple[str, ...], arguments: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal or file that is not UTF-8 gets a question mark for unknown characters.
            stream.reconfigure(errors="replace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [_expanded(each) for each in given if each != "--debug"] or ["--help"]
    before, sys.excepthook = sys.excepthook, (sys.__excepthook__ if debug else _report_bug)
    with warnings.catch_warnings(), ended_as_by_ctrl_c():
        if not debug:
            # Our warnings are notes for the user; those of libraries are for debugging.
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", EffdetDeployWarning)
            warnings.showwarning = lambda message, *_others, **_more: note(f"warning: {message}")
        code = _attempt(program, names, given, debug)
    # If an exception leaves this function, the hook stays in place to report that exception.
    sys.excepthook = before
    return code


def _expanded(argument: str) -> str:
    """Expand the tilde in ``--output=~/found``, where no shell does it."""
    option, equals, value = argument.partition("=")
    if option.startswith("--") and equals and value.startswith("~"):
        return f"{option}={os.path.expanduser(value)}"  # noqa: PTH111 - a path may end in a slash
    return argument


def _require_words(given: list[str]) -> None:
    """Refuse an empty argument, which would be read as the current folder."""
    for before, each in itertools.pairwise(["", *given]):
        if not each or (each.startswith("--") and each.endswith("=")):
            named = each.rstrip("=") or before
            raise UsageError(
                f"An argument is empty{f', after {named}' if named else ''}.",
                "Give it a value; perhaps a shell variable is not set.",
            )


def _attempt(program: str, names: tuple[str, ...], given: list[str], debug: bool) -> int:
    try:
        _require_words(given)
        command = typer.main.get_command(_app(names, given))
        # After Ctrl-C, Typer returns this code like the code of a finished command.
        if (code := command.main(given, prog_name=program, standalone_mode=False)) != INTERRUPTED:
            return code or 0
    except (KeyboardInterrupt, typer.Abort):
        pass
    except BrokenPipeError:
        mute(sys.stdout)
        return 0
    except (EffdetDeployError, typer.TyperException, OSError, MemoryError) as error:
        return _report(error, program, debug)
    except RuntimeError as error:
        if not _NO_MEMORY.search(str(error)):
            raise
        return _report(MemoryError(), program, debug)
    report_error("Interrupted.", "")
    return INTERRUPTED


def _app(names: tuple[str, ...], given: Sequence[str]) -> typer.Typer:
    """Make the Typer application of the commands ``names``; import only the one that runs."""
    alone = len(names) == 1
    chosen = names[0] if alone else next((each for each in given if not each.startswith("-")), "")
    if chosen and chosen not in names:
        raise UnknownNameError("command", chosen, names)
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        # Typer's Rich help imports Markdown and Pygments, which takes twice as long as the half
        # second that --help is allowed.
        rich_markup_mode=None,
        epilog=None if alone else _EPILOG,
    )
    if not alone:
        app.callback()(_about)
    for name in names:
        module = f"effdet_deploy.cli.{name}"
        command = importlib.import_module(module).run if name == chosen else lambda: None
        app.command(name, short_help=COMMANDS[name], epilog=_EPILOG)(command)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"effdet-deploy {__version__}")
        raise typer.Exit


def _about(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Export EfficientDet checkpoints to ONNX or TensorRT (FP32, FP16 or INT8) and verify them."""


def _report(error: BaseException, program: str, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    known = _as_ours(error, program)
    report_error(known.cause, known.remedy)
    return known.exit_code


def _as_ours(error: BaseException, program: str) -> EffdetDeployError:
    """Turn an error of the parser or the operating system into one of ours."""
    if isinstance(error, EffdetDeployError):
        return error
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        near = getattr(error, "possibilities", None)
        cause = error.message if near else error.format_message()
        remedy = f"See '{context.command_path if context else program} --help'."
        if near:
            remedy = f"Did you mean {', '.join(sorted(near))}? {remedy}"
        return UsageError(f"{' '.join(cause.split()).rstrip('.')}.", remedy)
    if isinstance(error, MemoryError):
        return ResourceError(
            "The memory ran out.", "Close other programs, or use a smaller image or batch."
        )
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return ResourceError("The disk is full.", "Free some space and run the command again.")
    if isinstance(error, OSError) and error.filename:
        said = f"{error.strerror}: '{error.filename}'."
        return InputError(said, "Check the path and its permissions.")
    return InputError(f"{error}.", "Check the paths and their permissions.")


def _report_bug(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Report an exception that nobody caught, in place of Python, which then exits with 1."""
    frames = traceback.extract_tb(trace)
    place = f" ({frames[-1].name}, line {frames[-1].lineno})" if frames else ""
    report_error(
        f"This is a bug in effdet-deploy: {kind.__name__}: {error}{place}.",
        f"Run the command again with --debug and report what it prints to {_ISSUES}.",
    )
