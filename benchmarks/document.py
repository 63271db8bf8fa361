"""What ``latency.py`` measured, as a Markdown document with plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from effdet_deploy.benchmark.report import markdown_table

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ("", "median ms", "ms an image", "95% interval", "p90", "p99", "spread", "ours is")
PREFACE = """# Benchmarks

Same weights (random, conditioned, seeded), same pictures, one process. *End to end* is from
letterboxed uint8 pictures in host memory to rows of boxes in host memory; *network* is from
normalised pixels to raw heads. Peers take turns; ratios are medians over neighbouring runs with
the 95% interval of the sign test, and "faster" means that the interval excludes 1.
"""


def markdown(document: dict[str, Any], plots: dict[int, str] | None = None) -> str:
    """Return the document; ``plots`` maps the index of a table to a picture beside it."""
    parts = [
        PREFACE,
        f"Machine: {document['machine']}.\n",
        f"Command: `python benchmarks/latency.py {document['command']}`.\n",
    ]
    for index, table in enumerate(document["tables"]):
        parts.append(_section(table))
        if plots and index in plots:
            parts.append(f"![{_title(table)}]({plots[index]})\n")
    return "\n".join(parts)


def _title(table: dict[str, Any]) -> str:
    height, width = table["image_size"]
    return (
        f"{table['variant'].upper()} at {height}x{width}, batch {table['batch']}, "
        f"{table['threads']} threads: {table['part']}"
    )


def _section(table: dict[str, Any]) -> str:
    cells = [_cells(row, table["batch"]) for row in table["rows"]]
    lines = [f"## {_title(table)}", "", markdown_table(COLUMNS, cells)]
    if reasons := table["load"]["reasons"]:
        lines.append(f"**Do not trust these numbers: {' and '.join(reasons)}.**\n")
    else:
        share = table["load"]["other_share"]
        lines.append(f"Other programs took {share:.1%} of the processors' time.\n")
    shares = ", ".join(f"{name} {share:.1%}" for name, share in table["graph_shares"].items())
    lines.append(f"Our graph in ONNX Runtime: {shares}.\n")
    return "\n".join(lines)


def _cells(row: dict[str, Any], batch: int) -> tuple[str, ...]:
    interval, ratio = row["median_interval_ms"], row["ours_is_faster_by"]
    return (
        row["name"],
        f"{row['median_ms']:.1f}",
        f"{row['median_ms'] / batch:.1f}",
        f"{interval[0]:.1f}-{interval[1]:.1f}" if interval else "",
        f"{row['p90_ms']:.1f}",
        f"{row['p99_ms']:.1f}",
        f"{row['variation']:.1%}",
        _ratio_text(ratio),
    )


def _ratio_text(ratio: dict[str, Any] | None) -> str:
    if ratio is None:
        return ""
    low, high = ratio["interval"]
    return f"{ratio['median']:.2f}x ({low:.2f}-{high:.2f}), {ratio['verdict']}"


def write_plots(document: dict[str, Any], directory: Path) -> dict[int, str]:
    """Draw each table as bars beside the document, if matplotlib is installed.

    Returns:
        The file name of each table's plot, by the table's index.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return {}
    names = {}
    for index, table in enumerate(document["tables"]):
        part = table["part"].replace(" ", "-")
        name = f"benchmarks-{table['variant']}-b{table['batch']}-{part}.svg"
        _draw(Figure(figsize=(8, 0.5 + 0.4 * len(table["rows"]))), table).savefig(
            directory / name, bbox_inches="tight", metadata={"Date": None}
        )
        names[index] = name
    return names


def _draw(figure: Any, table: dict[str, Any]) -> Any:
    rows = table["rows"]
    axes = figure.subplots()
    medians = [row["median_ms"] / table["batch"] for row in rows]
    colours = ["#2a6f97" if row["name"].startswith("ours") else "#b0b0b0" for row in rows]
    bars = axes.barh([row["name"] for row in rows], medians, color=colours)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.set_xlabel("ms an image (median; less is better)")
    axes.set_title(_title(table), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
