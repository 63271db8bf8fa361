"""The pictures of SOURCE: from folders, patterns and object stores, or rows of Parquet files."""

from __future__ import annotations

import contextlib
import glob
import itertools
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from effdet_deploy.batch.places import RemotePicture, file_system, is_remote, joined, opened
from effdet_deploy.detection.images import SUFFIXES, find_images
from effdet_deploy.errors import DataError, ImageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_PARQUET = frozenset({".parquet", ".pq"})
_ROWS = 10_000
"""The most paths of a column that are in memory at once."""


@dataclass(frozen=True)
class Listing:
    """The pictures of a source, in order.

    Attributes:
        keys: path or address of the pictures, or ``FILE#ROW`` in a Parquet file.
        root: the folder that relative keys refer to.
        column: the column of encoded pictures in Parquet files; otherwise empty.
    """

    keys: Iterable[str]
    root: str
    column: str = ""


def list_pictures(source: str, column: str | None, key: str | None = None) -> Listing:
    """Find the pictures of ``source``; :data:`SUFFIXES` says what is a picture in a folder.

    Args:
        source: a folder, a pattern, an object store's address, or Parquet files.
        column: for Parquet files, the column that holds encoded pictures or paths.
        key: for Parquet files, the column that names the pictures.

    Raises:
        ImageError: there are no pictures.
        UsageError: a column does not exist, or was not named.
        DataError: a Parquet file cannot be read.
    """
    if column is not None or PurePosixPath(source).suffix.lower() in _PARQUET:
        return _list_rows(source, column, key)
    if key is not None:
        raise UsageError(
            "--key names a column of Parquet files, but SOURCE has pictures.",
            "Leave --key out: the path of a picture is its key.",
        )
    if not is_remote(source):
        # Relative keys refer to the caller's folder; a worker may have another current folder.
        return Listing(map(str, find_images(source)), str(Path.cwd()))
    found = _list_files(source, SUFFIXES)
    if not found:
        raise ImageError(f"There is no picture at '{source}'.", "Check the address.")
    return Listing(found, "")


def read_pictures(listing: Listing, key_column: str | None) -> Iterator[tuple[str, Any]]:
    """Yield key and picture for all pictures, as :meth:`Detector.stream` takes them.

    Args:
        listing: the keys of one part, with the root and column of the source.
        key_column: for Parquet files, the column that names a picture; None for ``FILE#ROW``.

    Raises:
        DataError: a Parquet file cannot be read, or has lost rows since it was listed.
    """
    if listing.column:
        placed = (key.rpartition("#") for key in listing.keys)
        for file, group in itertools.groupby(placed, key=lambda each: each[0]):
            rows = [int(row) for *_, row in group]
            yield from _rows_of(file, rows, listing, key_column)
        return
    for key in listing.keys:
        address = joined(listing.root, key)
        yield key, RemotePicture(address) if is_remote(address) else address


def _list_files(source: str, suffixes: frozenset[str]) -> list[str]:
    """Return the addresses of files with these suffixes: in a folder, or matching a pattern."""
    files, path = file_system(source)
    names = files.glob(path) if glob.has_magic(path) else files.find(path)
    kept = [each for each in names if PurePosixPath(each).suffix.lower() in suffixes]
    return sorted(files.unstrip_protocol(each) if is_remote(source) else each for each in kept)


def _list_rows(source: str, column: str | None, key: str | None) -> Listing:
    files = _list_files(source, _PARQUET)
    if not files:
        raise ImageError(f"There is no Parquet file at '{source}'.", "Check the address.")
    kinds = _reading(files[0], _columns)
    # Datasets of Hugging Face store pictures as a struct of bytes and path.
    chosen = f"{column}.bytes" if f"{column}.bytes" in kinds else str(column)
    if "binary" in kinds.get(chosen, "") and (key is None or key in kinds):
        return Listing(_row_keys(files), "", chosen)
    if "string" in kinds.get(chosen, "") and key is None:
        files_home = files[0].rpartition("/")[0]
        return Listing(_path_keys(files, chosen), files_home)
    wrong = f"has no column '{column}' of bytes or text" if column else "needs --column"
    remedy = "Name the column of pictures or of their paths with --column."
    if chosen in kinds and key is not None:
        if "string" in kinds[chosen]:
            wrong, remedy = (
                "names pictures by their paths, so it takes no --key",
                "Leave --key out.",
            )
        else:
            wrong = f"has no column '{key}'"
            remedy = "Name another column with --key, or leave --key out."
    listed = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
    raise UsageError(
        f"The Parquet file '{files[0]}' {wrong}.", f"{remedy} The columns are: {listed}."
    )


def _columns(parquet: Any) -> dict[str, str]:
    """Return the types of columns by name, and of the fields of structs by their path."""
    kinds: dict[str, str] = {}
    for each in parquet.schema_arrow:
        if str(each.type).startswith("struct"):
            kinds |= {f"{each.name}.{field.name}": str(field.type) for field in each.type}
        else:
            kinds[each.name] = str(each.type)
    return kinds


def _reading(file: str, read: Callable[[Any], Any]) -> Any:
    """Call ``read`` on the Parquet file at an address, and translate its errors."""
    import pyarrow.parquet as pq

    with translated(file), opened(file) as stream, pq.ParquetFile(stream) as parquet:
        return read(parquet)


@contextlib.contextmanager
def translated(file: str) -> Iterator[None]:
    """Turn what a damaged Parquet file raises into a DataError that names the file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        raise DataError(
            f"The Parquet file '{file}' cannot be read: {error}.", "Write or copy it again."
        ) from error


def _row_keys(files: list[str]) -> Iterator[str]:
    for file in files:
        rows = _reading(file, lambda parquet: parquet.metadata.num_rows)
        yield from (f"{file}#{row}" for row in range(rows))


def _path_keys(files: list[str], column: str) -> Iterator[str]:
    import pyarrow.parquet as pq

    for file in files:
        with translated(file), opened(file) as stream, pq.ParquetFile(stream) as parquet:
            for batch in parquet.iter_batches(_ROWS, columns=[column]):
                yield from (each or "" for each in _leaf(batch, column).to_pylist())


def _leaf(batch: Any, column: str) -> Any:
    """Return the array of a column, or of a field in a struct, from an Arrow batch."""
    first, *fields = column.split(".") if column not in batch.schema.names else [column]
    array = batch.column(first)
    for each in fields:
        array = array.field(each)
    return array


def _rows_of(
    file: str, rows: list[int], listing: Listing, key_column: str | None
) -> Iterator[tuple[str, Any]]:
    """Yield key and picture of the ascending ``rows``; read only the row groups that hold them."""
    import pyarrow.parquet as pq

    columns = [listing.column, *([key_column] if key_column else [])]
    wanted = set(rows)
    given = 0
    with translated(file), opened(file) as stream, pq.ParquetFile(stream) as parquet:
        sizes = [
            parquet.metadata.row_group(each).num_rows for each in range(parquet.num_row_groups)
        ]
        ends = list(itertools.accumulate(sizes, initial=0))
        groups = [
            each
            for each in range(len(sizes))
            if ends[each] <= rows[-1] and ends[each + 1] > rows[0]
        ]
        place = ends[groups[0]] if groups else 0
        for batch in parquet.iter_batches(16, row_groups=groups, columns=columns):
            pictures = _leaf(batch, listing.column)
            names = _leaf(batch, key_column) if key_column else None
            for offset in range(len(batch)):
                if place + offset in wanted:
                    key = f"{file}#{place + offset}" if names is None else names[offset].as_py()
                    given += 1
                    yield str(key), pictures[offset].as_py() or b""
            place += len(batch)
    if given != len(rows):
        raise DataError(
            f"The Parquet file '{file}' has lost rows since the run began.",
            "Begin a new run in another OUTPUT.",
        )
