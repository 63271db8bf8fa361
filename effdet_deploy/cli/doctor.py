"""``effdet-deploy doctor``: what is installed on this machine, and what is missing."""

from __future__ import annotations

from effdet_deploy.cli import console
from effdet_deploy.cli import options as option


def run(json_file: option.JsonFile = None) -> None:
    """Show what is installed on this machine, its devices, and what each task still lacks."""
    from effdet_deploy.reports.listings import render_installation
    from effdet_deploy.runtimes.installation import examine

    console.require_results({"--json": json_file})
    document = examine()
    console.write_json(json_file, document)
    console.stdout().print(render_installation(document))
    for cause, remedy in document["notices"]:
        console.note(f"{cause} {remedy}")
