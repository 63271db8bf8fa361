"""Entry points of ``effdet-deploy``, ``effdet-export`` and ``python -m effdet_deploy``.

Ctrl-C is handled before anything else is imported, because the imports take a while.
"""

import sys


def main() -> int:
    """Run ``effdet-deploy``; see :func:`effdet_deploy.cli.main`."""
    return _run_cli("main")


def export_main() -> int:
    """Run ``effdet-export``; see :func:`effdet_deploy.cli.export_main`."""
    return _run_cli("export_main")


def _run_cli(name: str) -> int:
    try:
        from effdet_deploy import cli

        code: int = getattr(cli, name)()
    except KeyboardInterrupt:
        sys.stderr.write("error: Interrupted.\n")
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
