"""Measurements in a child process, which prints its result as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def json_of_child(
    *arguments: object,
    what: str,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Any:
    """Run Python with ``arguments`` and return the JSON in the last line of its stdout.

    Args:
        arguments: a script or ``-m`` and a module, and their arguments.
        what: what the process does, for the error message.
        environment: additional environment variables.
        timeout: seconds after which the process is killed.

    Raises:
        RuntimeError: the process failed, did not end in time or wrote no JSON.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and program
            [sys.executable, *map(str, arguments)],
            env=os.environ | dict(environment or {}),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=timeout,
        )
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{what} failed: {error.stderr[-500:]}") from error
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        raise RuntimeError(f"{what} gave no result: {error}") from error
