"""Ctrl-C ends a command quietly from the first moment."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["main", "export_main"])
def test_ctrl_c_while_the_command_line_is_imported_leaves_no_traceback(name):
    code = (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, module, path=None, target=None):\n"
        "        if module == 'typer':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        f"from effdet_deploy.__main__ import {name}\n"
        f"sys.exit({name}())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr == "error: Interrupted.\n"


def test_python_m_effdet_deploy_runs_the_command_line():
    command = [sys.executable, "-m", "effdet_deploy", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("effdet-deploy ")
