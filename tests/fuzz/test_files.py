"""Whatever bytes a file has, its parser returns a value or raises an error of this package.

It does so soon and in little memory. A random seed decides how a file is damaged. Each parser reads
forty damaged files in ``make test`` and two thousand in ``make test-all``; ``EFFDET_FUZZ`` sets
another number. Files that broke a parser are in ``found/``.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import time
from pathlib import Path

import pytest

from effdet_deploy.errors import EffdetDeployError
from tests.fuzz.mutations import damaged
from tests.fuzz.parsers import PARSERS

FEW, MANY = 40, 2000
FOUND = Path(__file__).parent / "found"
SECONDS = 5
"""Processor time that a file of a hundred kilobytes may take; most take milliseconds."""
HANGS_AFTER_SECONDS = 120
MEMORY = 1 << 30
"""How many bytes a parser may take beyond those that the process has."""


@contextlib.contextmanager
def limited(memory):
    """Let the process take at most ``memory`` more bytes; if it hangs, end it with a traceback."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, before[1]))
    faulthandler.dump_traceback_later(HANGS_AFTER_SECONDS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_AS, before)


def write(folder, name, content, beside):
    for other, data in beside.items():
        (folder / other).write_bytes(data)
    path = folder / name
    path.write_bytes(content)
    return path


def judge(parser, path, what):
    """Read one file; fail if the parser is slow or raises an error that is not of this package.

    The failure begins with ``what``, which names the file.
    """
    start = time.process_time()
    try:
        parser.read(path)
    except EffdetDeployError:
        pass
    except BaseException as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {str(error)[:300]}") from error
    spent = time.process_time() - start
    assert spent < SECONDS, f"{what} took {spent:.1f} s"


def fuzz(name, rounds, folder):
    """Let a parser read ``rounds`` damaged copies of its samples."""
    parser = PARSERS[name]
    samples = parser.samples()
    for place, sample in enumerate(samples):
        path = write(folder, parser.file, b"", sample.beside)
        for number in range(place, rounds, len(samples)):
            seed = f"{name} {number}"
            path.write_bytes(damaged(sample, samples, seed))
            with limited(MEMORY):
                judge(parser, path, seed)


@pytest.mark.parametrize("found", sorted(each.name for each in FOUND.iterdir()))
def test_files_that_once_broke_a_parser_are_read_or_refused(found, tmp_path):
    name = found.partition("~")[0].replace("-", " ")
    parser = PARSERS[name]
    path = write(tmp_path, parser.file, (FOUND / found).read_bytes(), parser.samples()[0].beside)
    with limited(MEMORY):
        judge(parser, path, found)


@pytest.mark.parametrize("name", PARSERS)
def test_damaged_files_are_read_or_refused(name, tmp_path):
    fuzz(name, FEW, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_many_damaged_files_are_read_or_refused(name, tmp_path):
    fuzz(name, int(os.environ.get("EFFDET_FUZZ", MANY)), tmp_path)
