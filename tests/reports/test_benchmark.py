from __future__ import annotations

from effdet_deploy.reports.benchmark import command_of


def test_a_stored_command_names_no_folder_of_the_machine():
    given = ["--peers", "eager;naive", "--json", "/home/somebody/out.json", "--files", "bench"]
    assert command_of(given) == "--peers 'eager;naive' --json out.json --files bench"
