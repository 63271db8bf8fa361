"""How a command ends when asked to: it cleans up first, or is ended by force if it hangs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

from effdet_deploy.cli.console import note, report_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C or a signal ended."""
_ENDING = {
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
}
_PATIENCE = 2.0
"""Seconds without a reaction after which the user is told that a second Ctrl-C ends the process."""
_ONE_REQUEST = 0.5
"""Seconds within which two signals count as one request: a shell and its wrapper both send one."""


@contextlib.contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """Clean up as after Ctrl-C when a scheduler or another program asks the command to end.

    A second request ends the process at once. Python's own handlers wait until a runtime's native
    code returns, which may never happen with a damaged model. Therefore the signal's number also
    goes through a socket to a thread that waits for it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # Under nohup a hang-up signal is ignored, and must stay ignored.
    ours = [each for each in _ENDING if signal.getsignal(each) is signal.SIG_DFL]
    for each in ours:
        signal.signal(each, stop)
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writer.close()
        watcher.join()
        reader.close()
        for each in ours:
            signal.signal(each, signal.SIG_DFL)


def _watch(reader: socket.socket) -> None:
    """Read signal numbers until the other end of the socket is closed."""
    first = None
    while True:
        try:
            numbers = reader.recv(64)
        except TimeoutError:
            note("The model is still computing. A second Ctrl-C ends the command at once.")
            reader.settimeout(None)
            continue
        if not numbers:
            return
        if not _ENDING.intersection(numbers):
            continue
        if first is None:
            first = time.monotonic()
            reader.settimeout(_PATIENCE)
        elif time.monotonic() - first > _ONE_REQUEST:
            if sys.stderr.isatty():
                # A progress bar has hidden the cursor.
                sys.stderr.write("\x1b[?25h")
            report_error("The command was interrupted twice and ended at once.", "")
            os._exit(INTERRUPTED)
