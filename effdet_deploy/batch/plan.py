"""The plan of a run: which pictures belong to which part; written before the work, into OUTPUT."""

from __future__ import annotations

import hashlib
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from effdet_deploy.batch.places import joined, names_in, opened, write
from effdet_deploy.batch.sources import Listing, translated
from effdet_deploy.errors import DataError, UsageError
from effdet_deploy.files import BROKEN_DOCUMENT

if TYPE_CHECKING:
    from effdet_deploy.detection.thresholds import ScoreThreshold

NAME = "_plan"
"""The name has no suffix, so that no reader of ``*.parquet`` takes the file for a part."""
METADATA = b"effdet.batch"
_READS_AT_ONCE = 32
"""How many files are examined at once, because an object store answers slowly."""
_DIGITS = 5


@dataclass(frozen=True)
class Settings:
    """The settings that the rows of a run depend on; they must not change when it is resumed.

    Attributes:
        source: SOURCE as the user named it.
        column: the column of Parquet files that the user named; None if not named.
        key: the column that names the picture; None if not named.
        model: the SHA-256 of the model file.
        score_threshold: the requested threshold; None keeps everything that the model gives.
        fast_decode: whether large JPEGs are decoded at a smaller size.
    """

    source: str
    column: str | None
    key: str | None
    model: str
    score_threshold: ScoreThreshold | None
    fast_decode: bool = False


@dataclass(frozen=True)
class Plan:
    """The parts of a run.

    Attributes:
        settings: the settings of the run.
        root: the folder that relative keys refer to.
        column: the column of encoded pictures; empty if the keys are paths.
        digest: the SHA-256 of the settings and all keys, which connects a part with its plan.
        counts: the number of pictures in every part.
    """

    settings: Settings
    root: str
    column: str
    digest: str
    counts: tuple[int, ...]

    @property
    def pictures(self) -> int:
        """The number of pictures in all parts."""
        return sum(self.counts)

    def part_name(self, number: int) -> str:
        """Return the file name of a part; names sort in the order of the pictures."""
        digits = max(_DIGITS, len(str(len(self.counts) - 1)))
        return f"part-{number:0{digits}}.parquet"


@dataclass(frozen=True)
class Finished:
    """What a finished part states about itself.

    Attributes:
        pictures: the number of its rows.
        errors: the number of rows of unreadable pictures.
        detections: the number of detections in all rows.
    """

    pictures: int = 0
    errors: int = 0
    detections: int = 0


def make_plan(output: str, listing: Listing, settings: Settings, size: int) -> Plan:
    """Divide the pictures into parts of ``size`` and write the plan to ``output``.

    The plan is a Parquet file whose row groups hold the keys of one part, so that a worker reads
    only the keys of its part.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    digest = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode())
    counts = []
    sink = pa.BufferOutputStream()
    schema = pa.schema([pa.field("key", pa.string(), nullable=False)])
    keys = iter(listing.keys)
    # Sorted paths have common beginnings, which this encoding stores only once.
    form = {"key": "DELTA_BYTE_ARRAY"}
    with pq.ParquetWriter(
        sink, schema, compression="zstd", use_dictionary=False, column_encoding=form
    ) as writer:
        while part := list(itertools.islice(keys, size)):
            # A file name in another encoding than UTF-8 stays readable, but cannot be opened.
            part = [each.encode("utf-8", "backslashreplace").decode() for each in part]
            for each in part:
                digest.update(each.encode() + b"\0")
            writer.write_table(pa.table([pa.array(part, pa.string())], schema), row_group_size=size)
            counts.append(len(part))
        plan = Plan(settings, listing.root, listing.column, digest.hexdigest(), tuple(counts))
        writer.add_key_value_metadata({METADATA: json.dumps(asdict(replace(plan, counts=())))})
    write(joined(output, NAME), sink.getvalue().to_pybytes())
    return plan


def read_plan(output: str) -> Plan | None:
    """Read the plan of the run in ``output``; None if there is no run.

    Raises:
        DataError: the plan cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if NAME not in names_in(output):
        return None
    try:
        with opened(joined(output, NAME)) as stream:
            footer = pq.read_metadata(stream)
        counts = tuple(footer.row_group(each).num_rows for each in range(footer.num_row_groups))
        said = json.loads(footer.metadata[METADATA])
        settings = Settings(**said.pop("settings"))
        plan = Plan(**said | {"settings": settings, "counts": counts})
        if not all(isinstance(each, str) for each in (plan.root, plan.column, plan.digest)):
            raise TypeError("its entries are not text")
    except (pa.ArrowException, *BROKEN_DOCUMENT) as error:
        raise DataError(
            f"The plan '{joined(output, NAME)}' cannot be read: {error}.",
            "Begin a new run in another OUTPUT.",
        ) from error
    return plan


def require_same(plan: Plan, settings: Settings) -> None:
    """Check that a resumed run has the settings that it began with.

    Raises:
        UsageError: it began with another source, model or threshold.
    """
    begun, now = asdict(plan.settings), asdict(settings)
    for name, what in (
        ("source", "SOURCE"),
        ("column", "--column"),
        ("key", "--key"),
        ("model", "The model's SHA-256"),
        ("score_threshold", "--score-threshold"),
        ("fast_decode", "--fast-decode"),
    ):
        if begun[name] != now[name]:
            was, is_now = (
                "not given" if each[name] is None else each[name] for each in (begun, now)
            )
            raise UsageError(
                f"{what} is {is_now}, but it was {was} when the run in OUTPUT began.",
                "Continue it with the same settings, or begin a new run in another OUTPUT.",
            )


class PlanReader:
    """Reads the pictures of parts from a plan, which stays open between parts.

    Args:
        output: the folder or address of the plan.
        plan: the plan.
    """

    def __init__(self, output: str, plan: Plan) -> None:
        import pyarrow.parquet as pq

        self._plan, self._output = plan, output
        with translated(joined(output, NAME)):
            self._file = pq.ParquetFile(opened(joined(output, NAME)))

    def part(self, number: int) -> Listing:
        """Return the keys of a part, with the root and column of the source."""
        with translated(joined(self._output, NAME)):
            keys = self._file.read_row_group(number).column("key").to_pylist()
            if not all(isinstance(each, str) for each in keys):
                raise ValueError("its keys are not text")
        return Listing(keys, self._plan.root, self._plan.column)


def finished_parts(output: str, plan: Plan) -> dict[int, Finished]:
    """Return the parts of ``plan`` that are complete in ``output``."""
    present = names_in(output)
    names = [plan.part_name(number) for number in range(len(plan.counts))]
    there = [number for number, name in enumerate(names) if name in present]

    def look(number: int) -> Finished | None:
        return _finished(joined(output, names[number]), plan, number)

    with ThreadPoolExecutor(_READS_AT_ONCE) as threads:
        found = zip(there, threads.map(look, there), strict=True)
        return {number: done for number, done in found if done is not None}


def _finished(address: str, plan: Plan, number: int) -> Finished | None:
    """Read what a part states about itself; None if it is cut off or belongs to another plan."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with opened(address) as stream:
            footer = pq.read_metadata(stream)
        said = json.loads(footer.metadata[METADATA])
        is_ours = (said["plan"], said["part"]) == (plan.digest, number)
        done = Finished(footer.num_rows, int(said["errors"]), int(said["detections"]))
    except (pa.ArrowException, *BROKEN_DOCUMENT):
        return None
    return done if is_ours and done.pictures == plan.counts[number] else None
