"""Write the results of ``files.py`` as a section of the document."""

from __future__ import annotations

from typing import Any

from sections import with_section

from effdet_deploy.reports.benchmark import markdown_table

TEXT = """JPEGs of 1080p on disk become boxes, with D0 at 512x512; all networks have random weights.
All ways take turns on the same files. The *bound* is how many files a second the processors could
do if they never waited. It follows from the processor time of decoding the JPEG, of the letterbox
and of the network. Each of these stages is measured alone on one thread in the same turns. The
*stand-in* takes the place of the network: it only waits, as a program waits for a GPU, so its bound
counts decoding and letterbox alone. *Share of the bound* is empty for ways that decode less or run
another network.
"""
HEADING, NEXT = "## From files to boxes\n", "## Scaling\n"
COLUMNS = ("", "files a second", "middle half of the turns", "share of the bound")
OTHER_WORK = ("bound", "fast-decode", "288x512", "Ultralytics")
"""Words in the names of ways that decode less or run another network; their share stays empty."""


def files_section(document: dict[str, Any] | None) -> list[str]:
    """Return the section, or nothing if nothing was measured."""
    parts = [HEADING] if document else []
    if document and (measured := document["pictures"]):
        cost = ", ".join(f"{name} {each:.1f} ms" for name, each in measured["cost_ms"].items())
        rows = {
            **measured["rows"],
            "bound: decoding, letterbox and network": measured["bound"],
            "bound: decoding and letterbox": measured["reading_bound"],
        }
        cells = [
            (
                name,
                f"{each['median']:.1f}",
                f"{each['low']:.1f}-{each['high']:.1f}",
                "" if any(word in name for word in OTHER_WORK) else f"{each['of_bound']:.2f}",
            )
            for name, each in rows.items()
        ]
        reasons = measured["load"]["reasons"]
        verdict = f"**Do not trust these numbers: {' and '.join(reasons)}.**\n" if reasons else ""
        parts += [
            TEXT,
            f"Command: `python benchmarks/files.py {document['command']}`\n",
            markdown_table(COLUMNS, cells),
            (
                f"{measured['files']} files, {measured['files_a_turn']} in a turn. "
                f"A file takes, on one thread: {cost}.\n"
            ),
            *([verdict] if verdict else []),
        ]
    for each in (document or {}).get("accuracy") or ():
        parts.append(
            f"`--fast-decode` on {each['scenes']} scenes of the digits detector, enlarged to "
            f"{each['side']}x{each['side']} and saved as JPEG: mAP "
            f"{100 * each['fast_ap']:.2f} in place of {100 * each['whole_ap']:.2f}, a difference "
            f"of {each['points']:+.2f} points [{each['low']:+.2f}, {each['high']:+.2f}].\n"
        )
    return parts


def filled(page: str, document: dict[str, Any]) -> str:
    """Return the page of all benchmarks with this section put in or replaced."""
    return with_section(page, HEADING, "\n".join(files_section(document)), NEXT)
