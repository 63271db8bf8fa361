"""The command line as a whole: help, exit codes, messages, and readers that leave early."""

from __future__ import annotations

import errno
import importlib
import signal
import subprocess
import sys

import pytest

from effdet_deploy import cli
from effdet_deploy.cli import COMMANDS, main
from effdet_deploy.errors import EffdetDeployError, MissingError, VerificationError
from tests.preflight.graphs import top_k

HEAVY = ("torch", "timm", "numpy", "PIL", "onnxruntime", "onnx", "rich.markdown", "pygments")


def test_help_names_every_command_and_goes_to_stdout(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr()
    for name, summary in COMMANDS.items():
        assert name in shown.out
        assert summary[:40] in shown.out
    assert shown.err == ""


def test_no_arguments_show_the_help(capsys):
    assert main([]) == 0
    assert "Usage: effdet-deploy" in capsys.readouterr().out


def test_version_is_shown(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("effdet-deploy ")


def test_help_imports_nothing_heavy():
    # Heavy imports make help slow; a test of the time itself would judge the machine.
    code = (
        "import sys; from effdet_deploy.cli import main; main(['--help'])\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_each_command_imports_nothing_heavy(name):
    code = (
        f"import sys; from effdet_deploy.cli import main; main(['{name}', '--help'])\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["detct"], "detect"),
        (["exprt", "model.onnx"], "export"),
        (["detect", "--score-treshold", "0.3"], "--score-threshold"),
        (["inspect", "--jsn", "x", "m"], "--json"),
    ],
)
def test_unknown_commands_and_flags_are_usage_errors_with_the_nearest_names(
    capsys, arguments, near
):
    assert main(arguments) == 2
    shown = capsys.readouterr()
    cause, remedy = shown.err.strip().splitlines()
    assert cause.startswith("error: ")
    assert f"Did you mean {near}" in remedy
    assert shown.out == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["detect"], "MODEL"),
        (["detect", "m.onnx", "a.jpg", "--threads", "many"], "integer"),
        (["detect", "m.onnx", "a.jpg", "--threads"], "--threads"),
    ],
)
def test_missing_and_malformed_values_are_usage_errors(capsys, arguments, said):
    assert main(arguments) == 2
    cause, remedy = capsys.readouterr().err.strip().splitlines()
    assert said in cause
    assert remedy.startswith("See 'effdet-deploy")


class Command:
    """A command module that raises."""

    error: BaseException

    @classmethod
    def run(cls) -> None:
        """Raise what the test chose."""
        raise cls.error


@pytest.fixture
def failing(monkeypatch):
    real = importlib.import_module

    def import_module(name: str, package=None):
        return Command if name == "effdet_deploy.cli.doctor" else real(name, package)

    monkeypatch.setattr(cli.importlib, "import_module", import_module)

    def fail(error: BaseException, *arguments: str) -> int:
        Command.error = error
        return main([*arguments, "doctor"])

    return fail


def every_error() -> list[type[EffdetDeployError]]:
    found = [EffdetDeployError]
    for each in found:
        found.extend(each.__subclasses__())
    return [each for each in found if each.__init__ is EffdetDeployError.__init__]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_each_error_ends_with_its_own_exit_code_a_cause_and_a_remedy(failing, capsys, kind):
    assert failing(kind("This [bold]is[/] wrong.", "Do that.")) == kind.exit_code
    shown = capsys.readouterr()
    assert shown.err == "error: This [bold]is[/] wrong.\nDo that.\n"
    assert shown.out == ""


def test_debug_shows_the_traceback_and_then_the_same_message(failing, capsys):
    assert failing(VerificationError("Wrong.", "Do that."), "--debug") == 3
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown
    assert shown.endswith("error: Wrong.\nDo that.\n")


def test_an_error_without_a_remedy_is_one_line(failing, capsys):
    assert failing(MissingError("Not here.")) == 4
    assert capsys.readouterr().err == "error: Not here.\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "Interrupted"),
        (MemoryError(), 4, "memory"),
        (OSError(errno.ENOSPC, "No space left on device"), 4, "disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "secret.onnx"), 5, "secret.onnx"),
    ],
)
def test_errors_of_the_system_are_shown_in_our_form(failing, capsys, error, code, said):
    assert failing(error) == code
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


BREAK = (
    "import effdet_deploy.cli.doctor as doctor\n"
    "def run(): raise ZeroDivisionError('an odd thing')\n"
    "doctor.run = run"
)


def test_an_unexpected_exception_is_a_bug_with_a_request_to_report_it(run_tool):
    done = run_tool("doctor", prelude=BREAK)
    assert done.returncode == 1
    assert "bug in effdet-deploy: ZeroDivisionError: an odd thing" in done.stderr
    assert "--debug and report" in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback_of_an_unexpected_exception(run_tool):
    done = run_tool("doctor", "--debug", prelude=BREAK)
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr


WARN = (
    "import warnings, effdet_deploy.cli.doctor as doctor\n"
    "from effdet_deploy.errors import EffdetDeployWarning\n"
    "def run(): warnings.warn('theirs', stacklevel=1); "
    "warnings.warn('ours', EffdetDeployWarning, stacklevel=1)\n"
    "doctor.run = run"
)


def test_our_warnings_are_shown_in_one_line_and_those_of_libraries_are_not(run_tool):
    done = run_tool("doctor", prelude=WARN)
    assert (done.returncode, done.stderr) == (0, "warning: ours\n")


def test_a_reader_that_leaves_early_causes_no_message():
    """As in ``effdet-deploy doctor | head``, where the pipe closes before the output ends."""
    shell = f'"{sys.executable}" -c "from effdet_deploy.cli import main; main()" doctor | true'
    done = subprocess.run(
        ["/bin/sh", "-c", shell], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""


TOOL = f'"{sys.executable}" -c "import sys; from effdet_deploy.cli import main; sys.exit(main())"'


def test_a_verdict_is_kept_when_the_reader_leaves_early(tmp_path):
    """A problem that `check` finds is exit code 5, even if nobody reads the output."""
    model = tmp_path / "model.onnx"
    model.write_bytes(top_k(5000).SerializeToString())
    command = f"{TOOL} check '{model}' --target tensorrt-10; echo $? >'{tmp_path}/code'"
    shell = f"({command}) | true"
    subprocess.run(["/bin/sh", "-c", shell], capture_output=True, check=False, timeout=60)
    assert (tmp_path / "code").read_text().strip() == "5"


def test_a_result_is_written_when_the_reader_of_the_progress_leaves(model, tmp_path):
    result = tmp_path / "result.txt"
    command = f"{TOOL} compare '{model}' --reference '{model}' >'{result}'; echo $? >>'{result}'"
    shell = f"({command}) 2>&1 | true"
    subprocess.run(["/bin/sh", "-c", shell], capture_output=True, check=False, timeout=60)
    *table, code = result.read_text().splitlines()
    assert any("passed" in line for line in table)
    assert code == "0"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_control_c_ends_with_130_and_no_traceback(run_tool):
    prelude = (
        "import os, signal, effdet_deploy.cli.doctor as doctor\n"
        # A program in the background of a shell inherits an ignored SIGINT.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"def run(): os.kill(os.getpid(), {signal.SIGINT.value}); signal.pause()\n"
        "doctor.run = run"
    )
    done = run_tool("doctor", prelude=prelude)
    assert done.returncode == 130
    assert done.stderr.strip() == "error: Interrupted."
