"""A run over many pictures: its rows, how it goes on after it was stopped, and what it refuses.

A run writes its rows in parts, one Parquet file each. The plan, in the file ``_plan``, says which
pictures belong to which part.
"""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyarrow import dataset
from pycocotools.coco import COCO

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.batch.plan import METADATA, read_plan
from effdet_deploy.detection.detector import Detector
from effdet_deploy.errors import (
    DataError,
    ImageError,
    MissingError,
    ModelFileError,
    UnknownNameError,
    UsageError,
)
from tests.batch.runs import (
    broken,
    expected_rows,
    inline,
    picture,
    rows_of,
    run,
    tiny,
    write_pictures,
    write_table,
)
from tests.onnx_models import detector_spec


@pytest.fixture
def model(tmp_path):
    return tiny(tmp_path)


@pytest.fixture
def pictures(tmp_path):
    return write_pictures(tmp_path / "pictures", 45, every=9)


def found_in(folder: Path) -> dict[str, Path]:
    """Return the pictures of a folder by the key of their row."""
    return {str(each): each for each in sorted(folder.rglob("*.jpg"))}


def test_rows_are_those_of_detect_in_the_order_of_the_pictures(
    monkeypatch, model, pictures, tmp_path
):
    inline(monkeypatch)
    done = run(model, pictures, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert rows == expected_rows(model, found_in(pictures))
    assert (done.pictures, done.errors, done.parts, done.done_now) == (45, 5, 5, 45)
    assert done.detections == sum(len(each["detections"] or ()) for each in rows)
    assert sum(each["error"] is not None for each in rows) == 5


def test_the_batch_size_changes_no_row(monkeypatch, pictures, tmp_path):
    model = tiny(tmp_path, detector_spec(batch=BatchSpec(1, 4, 8)))
    inline(monkeypatch)
    for batch in (None, 3):
        out = tmp_path / f"out-{batch}"
        run(model, pictures, out, batch=batch, cpus=2)
        assert rows_of(out) == expected_rows(model, found_in(pictures))
    with pytest.raises(UsageError, match="--batch must be from 1 to 8, not 9"):
        run(model, pictures, tmp_path / "out", batch=9)


def test_a_threshold_by_class_holds_as_in_detect(monkeypatch, model, pictures, tmp_path):
    inline(monkeypatch)
    asked = {"circle": 0.4, "*": 0.1}
    run(model, pictures, tmp_path / "out", score_threshold=asked)
    expected = expected_rows(model, found_in(pictures), score_threshold=asked)
    assert rows_of(tmp_path / "out") == expected
    with pytest.raises(UnknownNameError, match="class"):
        run(model, pictures, tmp_path / "other", score_threshold={"cube": 0.5})
    assert not (tmp_path / "other").exists()


def test_relative_paths_are_found_whatever_directory_a_worker_runs_in(
    monkeypatch, model, pictures, tmp_path
):
    """Workers of Ray run in a directory of their own."""
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    inline(monkeypatch, lambda *_: monkeypatch.chdir(elsewhere))
    run(model, "pictures", tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [each["key"] for each in rows] == [
        str(each.relative_to(tmp_path)) for each in found_in(pictures).values()
    ]
    assert sum(each["error"] is None for each in rows) == 40


def test_fast_decode_keeps_the_size_of_pictures_and_cannot_change_when_a_run_is_resumed(
    monkeypatch, model, tmp_path
):
    """Scores are those of the reduced picture; the row holds the size of the whole one."""
    inline(monkeypatch)
    colors = np.random.default_rng(5).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(colors).resize((1200, 900)).save(tmp_path / "large.jpg")
    run(model, tmp_path / "large.jpg", tmp_path / "out", fast_decode=True)
    (row,) = rows_of(tmp_path / "out")
    with Detector.load(model, threads=1) as detector:
        (fast,) = detector.stream([tmp_path / "large.jpg"], fast_decode=True)
    assert (row["width"], row["height"]) == (1200, 900)
    assert [each["score"] for each in row["detections"]] == fast.detections.scores.tolist()
    with pytest.raises(UsageError, match="--fast-decode is False, but it was True"):
        run(model, tmp_path / "large.jpg", tmp_path / "out", resume=True)


def test_pycocotools_reads_the_coco_files_of_a_finished_run(monkeypatch, model, pictures, tmp_path):
    inline(monkeypatch)
    run(model, pictures, tmp_path / "out")
    done = run(model, pictures, tmp_path / "out", resume=True, coco=tmp_path / "coco")
    assert done.done_now == 0
    dataset = COCO(tmp_path / "coco" / "detections.coco.json")
    results = dataset.loadRes(str(tmp_path / "coco" / "detections.coco-results.json"))
    rows = rows_of(tmp_path / "out")
    read = {number: row for number, row in enumerate(rows, start=1) if row["error"] is None}
    assert {each["id"]: each["file_name"] for each in dataset.loadImgs(dataset.getImgIds())} == {
        number: row["key"] for number, row in read.items()
    }
    for number, row in read.items():
        for held in (dataset, results):
            found = held.loadAnns(held.getAnnIds(imgIds=[number]))
            assert [(each["category_id"], each["score"]) for each in found] == [
                (each["category_id"], each["score"]) for each in row["detections"]
            ]
            corners = [
                [each["x1"], each["y1"], each["x2"], each["y2"]] for each in row["detections"]
            ]
            boxes = [[x, y, x + w, y + h] for x, y, w, h in (each["bbox"] for each in found)]
            np.testing.assert_allclose(boxes, corners, atol=0.002)


class Killed(BaseException):
    """Ends a run as a signal does: nothing that handles errors catches it."""


def run_until_the_third_part(monkeypatch, model, pictures, out):
    """Start a run that is killed before its third part."""

    def stop(number, _worker):
        if number == 2:
            raise Killed

    inline(monkeypatch, stop)
    with pytest.raises(Killed):
        run(model, pictures, out)


def test_a_run_that_was_stopped_goes_on_with_the_missing_parts(
    monkeypatch, model, pictures, tmp_path
):
    out = tmp_path / "out"
    run_until_the_third_part(monkeypatch, model, pictures, out)
    parts = sorted(out.glob("*.parquet"))
    assert [each.name for each in parts] == ["part-00000.parquet", "part-00001.parquet"]
    times = {each: each.stat().st_mtime_ns for each in parts}
    did = []
    inline(monkeypatch, lambda number, _worker: did.append(number))
    with pytest.raises(UsageError, match="Add --resume"):
        run(model, pictures, out)
    done = run(model, pictures, out, resume=True)
    assert did == [2, 3, 4]
    assert (done.pictures, done.errors, done.done_now) == (45, 5, 25)
    assert rows_of(out) == expected_rows(model, found_in(pictures))
    assert {each: each.stat().st_mtime_ns for each in parts} == times
    again = run(model, pictures, out, resume=True)
    assert (again.pictures, again.errors, again.done_now, again.rate) == (45, 5, 0, 0)
    assert did == [2, 3, 4]


def test_only_a_whole_part_of_this_plan_counts_as_done(monkeypatch, model, pictures, tmp_path):
    """A part is made again if it is cut off, empty, missing, misnamed or from another plan."""
    out, other = tmp_path / "out", tmp_path / "other"
    inline(monkeypatch)
    run(model, pictures, out)
    run(model, pictures, other, score_threshold=0.5)
    whole = {each.name: each.read_bytes() for each in sorted(out.glob("*.parquet"))}
    zero, one, two, three, four = whole
    (out / zero).write_bytes(whole[zero][: len(whole[zero]) // 2])
    (out / one).write_bytes(whole[two])  # another part of this plan
    (out / two).write_bytes((other / two).read_bytes())  # the same part of another plan
    (out / three).unlink()
    (out / four).write_bytes(b"")
    did = []
    inline(monkeypatch, lambda number, _worker: did.append(number))
    run(model, pictures, out, resume=True)
    assert did == [0, 1, 2, 3, 4]
    assert {each.name: each.read_bytes() for each in sorted(out.glob("*.parquet"))} == whole


def test_a_late_worker_of_an_earlier_run_doubles_no_row(monkeypatch, model, pictures, tmp_path):
    """A worker that outlives its run writes its part once more: no picture may have two rows."""
    out = tmp_path / "out"
    late = []

    def stop(number, worker):
        if number == 3:
            late.append(worker)
            raise Killed

    inline(monkeypatch, stop)
    with pytest.raises(Killed):
        run(model, pictures, out)
    inline(monkeypatch, lambda number, _: late[0]({"part": np.array([number])}))
    run(model, pictures, out, resume=True)
    late[0]({"part": np.array([1])})
    assert rows_of(out) == expected_rows(model, found_in(pictures))


def test_pictures_that_are_added_after_the_start_change_no_part(
    monkeypatch, model, pictures, tmp_path
):
    out = tmp_path / "out"
    expected = expected_rows(model, found_in(pictures))
    run_until_the_third_part(monkeypatch, model, pictures, out)
    (pictures / "000" / "0.jpg").write_bytes(picture(np.random.default_rng(0)))
    inline(monkeypatch)
    run(model, pictures, out, resume=True)
    assert rows_of(out) == expected


def test_a_run_is_resumed_only_with_its_own_model_source_and_options(
    monkeypatch, model, pictures, tmp_path
):
    inline(monkeypatch)
    out = tmp_path / "out"
    run(model, pictures, out)
    other = tmp_path / "other"
    other.mkdir()
    changed = tiny(other, detector_spec(score_threshold=0.2))
    for arguments, options, said in (
        ((changed, pictures), {}, "The model's SHA-256 is"),
        ((model, pictures / "000"), {}, "SOURCE is .*, but it was"),
        (
            (model, pictures),
            {"score_threshold": 0.5},
            "--score-threshold is 0.5, but it was not given",
        ),
        ((model, pictures), {"key": "name"}, "--key"),
    ):
        with pytest.raises(UsageError, match=said):
            run(*arguments, out, resume=True, **options)


def test_a_plan_without_a_finished_part_is_made_anew(monkeypatch, model, pictures, tmp_path):
    out = tmp_path / "out"

    def stop(_number, _worker):
        raise Killed

    inline(monkeypatch, stop)
    with pytest.raises(Killed):
        run(model, pictures, out, score_threshold=0.5)
    inline(monkeypatch)
    run(model, pictures, out)
    assert rows_of(out) == expected_rows(model, found_in(pictures))


def test_an_output_with_foreign_files_or_a_damaged_plan_is_refused(
    monkeypatch, model, pictures, tmp_path
):
    inline(monkeypatch)
    out = tmp_path / "out"
    out.mkdir()
    write_table(out / "mine.parquet", 10, value=[1])
    with pytest.raises(UsageError, match="but not the file '_plan'"):
        run(model, pictures, out, resume=True)
    (out / "mine.parquet").unlink()
    (out / "_plan").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="plan"):
        run(model, pictures, out, resume=True)


def test_a_model_that_fails_ends_the_run_with_its_own_error(monkeypatch, pictures, tmp_path):
    model = tmp_path / "tiny.onnx"
    tiny(tmp_path)
    data = model.read_bytes()
    inline(monkeypatch, lambda *_: model.write_bytes(data[:100]))
    with pytest.raises(ModelFileError):
        run(model, pictures, tmp_path / "out")


def test_a_run_fails_where_workers_wrote_its_parts_elsewhere(
    monkeypatch, model, pictures, tmp_path
):
    """Workers on other machines write to their own disks where OUTPUT is a local folder."""
    inline(monkeypatch, lambda number, _: [each.unlink() for each in out.glob("*.parquet")])
    out = tmp_path / "out"
    with pytest.raises(MissingError, match="4 of 5 parts are not in OUTPUT"):
        run(model, pictures, out)


def test_an_output_that_is_a_file_is_refused(monkeypatch, model, pictures):
    inline(monkeypatch)
    with pytest.raises(UsageError, match="director"):
        run(model, pictures, model)


def test_a_source_without_pictures_is_refused_and_leaves_no_plan(monkeypatch, model, tmp_path):
    inline(monkeypatch)
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "empty", "memory://nothing", tmp_path / "none.parquet"):
        with pytest.raises(ImageError, match="There is no"):
            run(model, source, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_object_stores_are_read_and_written(monkeypatch, model, pictures, tmp_path):
    inline(monkeypatch)
    store = fsspec.filesystem("memory")
    sources = {}
    for path in found_in(pictures).values():
        address = f"memory:///set/{path.relative_to(pictures)}"
        store.pipe_file(address, path.read_bytes())
        sources[address] = path.read_bytes()
    done = run(model, "memory:///set", "memory:///found")
    assert done.pictures == 45
    for name in store.find("/found"):
        (tmp_path / "found").mkdir(exist_ok=True)
        (tmp_path / "found" / Path(name).name).write_bytes(store.cat_file(name))
    expected = expected_rows(model, sources)
    rows = rows_of(tmp_path / "found")
    assert [each | {"error": None} for each in rows] == [
        each | {"error": None} for each in expected
    ]
    assert [each["error"] is None for each in rows] == [each["error"] is None for each in expected]
    store.rm("/found/part-00001.parquet")
    assert run(model, "memory:///set", "memory:///found", resume=True).done_now == 10
    one = run(model, "memory:///set/000/00000?.jpg", "file://" + str(tmp_path / "few"))
    assert one.pictures == 10


def encoded(count: int) -> list[bytes]:
    """Return pictures as bytes; one in nine is broken."""
    random = np.random.default_rng(3)
    made = [picture(random) for _ in range(count)]
    return [broken(each, index) if index % 9 == 4 else each for index, each in enumerate(made)]


def test_a_column_of_pictures_is_read_row_by_row(monkeypatch, model, tmp_path):
    inline(monkeypatch)
    monkeypatch.chdir(tmp_path)
    Path("set").mkdir()
    data = encoded(37)
    write_table(Path("set/a.parquet"), 8, jpeg=data[:20], id=[f"a{each}" for each in range(20)])
    write_table(Path("set/b.parquet"), 8, jpeg=data[20:], id=[f"b{each}" for each in range(17)])
    run(model, "set", "out", column="jpeg")
    keys = [f"{tmp_path}/set/a.parquet#{each}" for each in range(20)]
    keys += [f"{tmp_path}/set/b.parquet#{each}" for each in range(17)]
    assert rows_of("out") == expected_rows(model, dict(zip(keys, data, strict=True)))
    run(model, "set/*.parquet", "named", column="jpeg", key="id", part=7)
    names = [f"a{each}" for each in range(20)] + [f"b{each}" for each in range(17)]
    assert rows_of("named") == expected_rows(model, dict(zip(names, data, strict=True)))


def test_pictures_in_a_struct_are_read_as_hugging_face_writes_them(monkeypatch, model, tmp_path):
    inline(monkeypatch)
    data = encoded(12)
    cells = [{"bytes": each, "path": None} for each in data]
    file = write_table(tmp_path / "train.parquet", 5, image=cells)
    for name, column in (("a", "image"), ("b", "image.bytes")):
        run(model, file, tmp_path / name, column=column)
        expected = expected_rows(
            model, {f"{file}#{index}": each for index, each in enumerate(data)}
        )
        assert rows_of(tmp_path / name) == expected


def test_paths_in_a_column_begin_at_their_files_folder(monkeypatch, model, pictures, tmp_path):
    inline(monkeypatch)
    paths = [str(each.relative_to(tmp_path)) for each in found_in(pictures).values()]
    file = write_table(
        tmp_path / "list.parquet", 8, path=[*paths, str(pictures / "none.jpg"), None]
    )
    run(model, file, tmp_path / "out", column="path")
    rows = rows_of(tmp_path / "out")
    known = {path: tmp_path / path for path in paths}
    assert rows[:-2] == expected_rows(model, known)
    assert ["does not exist" in rows[-2]["error"], rows[-1]["key"]] == [True, ""]
    assert rows[-1]["error"]


def test_a_missing_column_is_named_with_the_columns_that_exist(monkeypatch, model, tmp_path):
    inline(monkeypatch)
    cells = [{"bytes": b"", "path": ""}]
    file = write_table(tmp_path / "set.parquet", 5, image=cells, n=[1])
    for column, key, said in (
        (None, None, "needs --column"),
        ("n", None, "has no column 'n' of bytes or text"),
        ("x", None, "has no column 'x' of bytes or text"),
        ("image", "id", "has no column 'id'"),
        ("image.path", "n", "names pictures by their paths, so it takes no --key"),
    ):
        with pytest.raises(UsageError, match=said) as raised:
            run(model, file, tmp_path / "out", column=column, key=key)
        listed = "The columns are: image.bytes (binary), image.path (string), n (int64)."
        assert raised.value.remedy.endswith(listed)
    with pytest.raises(UsageError, match="SOURCE has pictures"):
        run(model, tmp_path, tmp_path / "out", key="id")
    file.write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read"):
        run(model, file, tmp_path / "out", column="image")


def test_a_source_that_lost_rows_ends_the_run(monkeypatch, model, tmp_path):
    data = encoded(12)
    file = write_table(tmp_path / "set.parquet", 5, jpeg=data)
    inline(
        monkeypatch,
        lambda number, _: number and write_table(tmp_path / "set.parquet", 5, jpeg=data[:11]),
    )
    with pytest.raises(DataError, match="has lost rows"):
        run(model, file, tmp_path / "out", column="jpeg")


def test_a_part_says_what_it_was_made_with(monkeypatch, model, pictures, tmp_path):
    inline(monkeypatch)
    run(model, pictures, tmp_path / "out", score_threshold=0.25)
    plan = read_plan(str(tmp_path / "out"))
    assert plan is not None
    for number, count in enumerate((10, 10, 10, 10, 5)):
        footer = pq.read_metadata(tmp_path / "out" / plan.part_name(number))
        said = json.loads(footer.metadata[METADATA])
        assert (footer.num_rows, said["plan"], said["part"]) == (count, plan.digest, number)
        assert said["score_threshold"] == 0.25
        assert said["model"] == plan.settings.model
    table = dataset.dataset(tmp_path / "out", format="parquet").to_table()
    assert table.num_rows == 45
