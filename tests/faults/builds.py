"""Constants and functions that the tests of engine builds share."""

from __future__ import annotations

import sys

from effdet_deploy.exporters.build_options import BuildOptions

RTX = BuildOptions(backend="tensorrt-rtx")
OLD = b"an engine of yesterday"
PATIENCE_S = 250


def build_command(*arguments):
    """Return the command of a Python program that runs ``effdet-deploy build``.

    It can be interrupted: it restores SIGINT, which a shell's background jobs ignore, and SIGHUP,
    which programs under nohup ignore.
    """
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "signal.signal(signal.SIGHUP, signal.SIG_DFL); "
        "from effdet_deploy.cli import main; sys.exit(main(['build', *sys.argv[1:]]))"
    )
    return [sys.executable, "-c", program, *map(str, arguments)]


def assert_untouched(engine, *others):
    """Require that the old engine is unchanged, and that no new file lies beside it."""
    assert engine.read_bytes() == OLD
    names = {each.name for each in engine.parent.iterdir()}
    assert names == {engine.name, *(each.name for each in others)}
