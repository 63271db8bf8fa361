"""The numbers of a command, as a terminal shows them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from effdet_deploy.batch.job import Statistics
from effdet_deploy.reports.listings import render_batch


@pytest.mark.parametrize(("parts", "files"), [(1, "1 file of out"), (1200, "1,200 files of out")])
def test_a_run_over_many_pictures_counts_its_files(parts, files):
    done = Statistics(40, 0, 317, parts, 40, 20.0, {})
    console = Console(file=io.StringIO(), width=200)
    console.print(render_batch(done, "out"))
    assert f"40 in {files}" in console.file.getvalue()
