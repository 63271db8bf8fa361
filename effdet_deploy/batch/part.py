"""One part of a run: a Parquet file with one row per picture."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from effdet_deploy.batch.plan import METADATA, Finished

if TYPE_CHECKING:
    from collections.abc import Mapping

    from effdet_deploy.detection.detections import Detections

_NUMBERS = ("score", "x1", "y1", "x2", "y2")


def schema() -> Any:
    """Return the Arrow schema of a part; ``docs/batch.md`` describes its columns."""
    import pyarrow as pa

    detection = pa.struct(
        [
            ("class_id", pa.int32()),
            ("class_name", pa.string()),
            ("category_id", pa.int32()),
            *((name, pa.float32()) for name in _NUMBERS),
        ]
    )
    return pa.schema(
        [
            pa.field("key", pa.string(), nullable=False),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("error", pa.string()),
            ("detections", pa.list_(detection)),
        ]
    )


@dataclass
class Rows:
    """The rows of a part, collected picture by picture.

    Attributes:
        keys: the keys of the pictures.
        sizes: height and width of the pictures; None for an unreadable picture.
        errors: why a picture could not be read; None if it was read.
        found: the detections in the pictures; None for an unreadable picture.
    """

    keys: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int] | None] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    found: list[Detections | None] = field(default_factory=list)

    def add(self, key: str, size: tuple[int, int] | None, found: Detections | None) -> None:
        """Add a picture of a size (height, width) and its detections."""
        self.keys.append(key)
        self.sizes.append(size)
        self.errors.append(None)
        self.found.append(found)

    def add_error(self, key: str, error: str) -> None:
        """Add a picture that could not be read, with the reason."""
        self.add(key, None, None)
        self.errors[-1] = error

    def finished(self) -> Finished:
        """Return the counts of these rows."""
        errors = sum(each is not None for each in self.errors)
        return Finished(
            len(self.keys), errors, sum(len(each) for each in self.found if each is not None)
        )

    def encoded(self, about: Mapping[str, Any]) -> bytes:
        """Return the Parquet file of these rows; ``about`` goes into its metadata as JSON."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        done = self.finished()
        said = {**about, "errors": done.errors, "detections": done.detections}
        form = schema()
        table = pa.table(
            [
                pa.array(self.keys, pa.string()),
                *(
                    pa.array([each and each[side] for each in self.sizes], pa.int32())
                    for side in (1, 0)
                ),
                pa.array(self.errors, pa.string()),
                self._detections(form.field("detections").type),
            ],
            form.with_metadata({METADATA: json.dumps(said)}),
        )
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]

    def _detections(self, kind: Any) -> Any:
        import pyarrow as pa

        found = [each for each in self.found if each is not None]
        labels = np.concatenate([np.empty(0, np.int64), *(each.labels for each in found)])
        scores = np.concatenate([np.empty(0, np.float32), *(each.scores for each in found)])
        boxes = np.concatenate([np.empty((0, 4), np.float32), *(each.boxes for each in found)])
        names = [each.names[label] for each in found for label in each.labels]
        categories = [each.category_ids[label] for each in found for label in each.labels]
        columns = [
            pa.array(labels, pa.int32()),
            pa.array(names, pa.string()),
            pa.array(categories, pa.int32()),
            pa.array(scores, pa.float32()),
            *(pa.array(boxes[:, side], pa.float32()) for side in range(4)),
        ]
        structs = pa.StructArray.from_arrays(columns, fields=list(kind.value_type))
        ends = np.cumsum([0, *(len(each) if each is not None else 0 for each in self.found)])
        absent = pa.array([each is None for each in self.found], pa.bool_())
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), structs, type=kind, mask=absent)
