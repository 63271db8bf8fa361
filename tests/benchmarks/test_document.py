"""The document that the benchmarks write, from measurements made up here."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from effdet_deploy.benchmark import Timing, compare, describe_machine
from effdet_deploy.errors import ResourceError, UsageError

OURS, OPENVINO = "ours, ONNX Runtime", "ours, OpenVINO FP32"
MEDIANS = {
    "effdet eager": 200.0,
    "effdet naive ONNX, ONNX Runtime": 100.0,
    OURS: 40.0,
    OPENVINO: 50.0,
    "ours, OpenVINO INT8": 25.0,
}
SHARES = {OURS: {"backbone": 0.7, "heads": 0.2, "nms": 0.06, "preprocess": 0.04}}
TURNS = 9


def timing(milliseconds):
    return Timing(tuple(milliseconds / 1e3 * (1 + 0.001 * turn) for turn in range(TURNS)))


def table(part, batch, variant="d0", reasons=()):
    ours = timing(batch * MEDIANS[OURS])
    rows = []
    for name, median in MEDIANS.items():
        each = timing(batch * median)
        ratio = None if name == OURS else compare(ours, each).to_dict()
        rows.append({"name": name, **each.to_dict(), "ours_is_faster_by": ratio})
    return {
        "variant": variant,
        "asked_size": None,
        "image_size": [512, 512],
        "batch": batch,
        "threads": 2,
        "part": part,
        "rows": rows,
        "work": {"macs": 2_500_000_000, "traffic": 400_000_000},
        "graph_shares": SHARES,
        "outside": {OURS: {"median": 0.08, "low": 0.07, "high": 0.09, "pairs": 41}},
        "batch_cost": {OURS: {"median": 1.0, "low": 0.95, "high": 1.05, "pairs": 11}},
        "load": {"reasons": list(reasons), "other_share": 0.01},
    }


@pytest.fixture
def measured():
    return {
        "machine": "Imaginary 9000",
        "command": "--variants d0",
        "versions": {"onnxruntime": "1.0"},
        "ceilings": {"threads": 2, "flops": 200e9, "bandwidth": 10e9},
        "tables": [table("end to end", 1), table("network", 1), table("end to end", 8)],
        "startup": {
            "variant": "d0",
            "ours_is_sooner_by": {"median": 10.0, "interval": [9.0, 11.0], "pairs": 7},
            "load": {"reasons": [], "other_share": 0.01},
            "rows": [
                {
                    "name": OURS,
                    "file_size": 16_000_000,
                    "until_first_s": 0.9,
                    "import_s": 0.4,
                    "load_s": 0.3,
                    "first_s": 0.2,
                    "peak_memory": 200_000_000,
                }
            ],
        },
    }


PLACE = {"variant": "d0", "batch": 1, "threads": 2, "detections": 100, "candidates": 1000}


def point(kind, milliseconds, **fields):
    engines = {name: timing(milliseconds).to_dict() for name in ("onnxruntime", "openvino")}
    measured = {"image_size": [512, 512], "macs": 2_500_000_000, "engines": engines, "reasons": []}
    return {"kind": kind, **PLACE, **measured, **fields}


@pytest.fixture
def scaling():
    points = [
        point("variant", 40.0),
        point("variant", 90.0, variant="d1", image_size=[640, 640]),
        point("batch", 40.0),
        point("batch", 320.0, batch=8),
        point("detections", 40.0),
        {
            **PLACE,
            "kind": "export",
            "variant": "d7x",
            "image_size": [1536, 1536],
            "export_s": 38.0,
            "process_s": 45.0,
            "peak_memory": 2_600_000_000,
            "file_size": 300_000_000,
            "reasons": [],
        },
    ]
    return {
        "command": "",
        "machine": "Imaginary 8000",
        "versions": {"effdet-deploy": "0.0.9"},
        "points": {str(index): each for index, each in enumerate(points)},
    }


def lines_with(text, *words):
    return [line for line in text.splitlines() if all(word in line for word in words)]


def test_every_table_has_its_title_rows_and_chart(measured, tmp_path):
    from document import markdown, write_plots

    plots = write_plots(measured, tmp_path)
    text = markdown(measured, plots)
    assert len(lines_with(text, "## D0 at 512x512")) == 3
    for path in plots.values():
        assert f"]({path})" in text
        assert (tmp_path / path).read_text().startswith("<svg xmlns=")
    (row,) = (line for line in lines_with(text, "| effdet eager | 1606.4") if "200.8" in line)
    assert "5.00x" in row


def test_the_claims_are_ratios_of_what_was_measured(measured):
    from headline import headline

    text = headline(measured)
    assert "5.00x" in lines_with(text, f"{OURS} against effdet eager")[0]
    assert "2.50x" in lines_with(text, f"{OURS} against effdet naive")[0]
    assert "1.60x" in lines_with(text, "INT8 against our best FP32")[0]
    assert "8.00x" in lines_with(text, "INT8 against effdet eager")[0]
    assert "1.00x" in lines_with(text, OURS, "batch 8, against batch 1")[0]
    assert (
        "8.0% of the time (7.0% to 9.0%)"
        in lines_with(text, "preprocess, decode, selection and NMS")[0]
    )
    assert "10.0x (9.0-11.0)" in lines_with(text, "import to first detection")[0]


def test_what_was_not_measured_is_not_claimed(measured):
    from headline import headline

    measured["startup"] = None
    for each in measured["tables"]:
        each["rows"] = [row for row in each["rows"] if "INT8" not in row["name"]]
    text = headline(measured)
    assert "INT8" not in text
    assert "import to first" not in text


def test_a_disturbed_table_says_so(measured):
    from document import markdown

    measured["tables"] = [table("end to end", 1, reasons=["other programs took 30%"])]
    assert "Do not trust these numbers: other programs took 30%" in markdown(measured)


def test_work_per_second_is_shown_as_a_share_of_the_ceiling(measured):
    from document import markdown

    # 5 GFLOP in 40.16 ms are 124.5 GFLOP/s of 200.
    (line,) = lines_with(markdown(measured), f"| D0, {OURS} | 2.50")
    assert "62%" in line


def test_scaling_is_part_of_the_document_with_its_charts(measured, scaling, tmp_path):
    from document import markdown, write_plots

    measured["scaling"] = scaling
    plots = write_plots(measured, tmp_path)
    assert {"scaling-variant", "scaling-batch"} <= set(plots)
    text = markdown(measured, plots)
    assert lines_with(text, "D1 at 640x640", "90.")
    assert lines_with(text, "| 8 |", "40.2")
    assert lines_with(text, "D7X", "38.0", "2.60")
    assert lines_with(text, "Imaginary 9000")
    assert lines_with(text, "Imaginary 8000")


def test_the_chart_of_accuracy_names_the_machine_that_measured_its_latencies(measured, tmp_path):
    from document import markdown, write_plots

    machine = asdict(describe_machine()) | {"cpu": "Imaginary 7000"}
    where = {"effdet_deploy": "0.0.8", "machine": machine}
    row = {"ap": 0.5, "engine": "openvino", "latency": {"openvino": {"median_ms": 30.0}}}
    measured["accuracy"] = {
        "rows": {"FP32": row},
        "latency_environment": {"openvino": where, "onnxruntime": where},
    }
    text = markdown(measured, write_plots(measured, tmp_path))
    assert len(lines_with(text, "Imaginary 7000", "effdet-deploy 0.0.8")) == 1


def test_accuracy_is_drawn_only_where_its_own_runtime_was_timed(measured, tmp_path):
    from document import write_plots

    row = {"ap": 0.5, "engine": "openvino", "latency": {"openvino": {"median_ms": 30.0}}}
    elsewhere = row | {"latency": {"onnxruntime": {"median_ms": 90.0}}}
    measured["accuracy"] = {"rows": {"FP32": row, "INT8": elsewhere}}
    plots = write_plots(measured, tmp_path)
    drawn = (tmp_path / plots["accuracy"]).read_text()
    assert "FP32; OpenVINO" in drawn
    assert "INT8" not in drawn


def test_what_an_interrupted_run_left_is_not_measured_again(measured, tmp_path):
    import latency
    from store import Record

    path = tmp_path / "benchmarks.json"
    path.write_text(json.dumps(measured))
    here = {name: measured[name] for name in ("machine", "versions")}
    found = Record.open(path, here, {"tables": [], "rows": {}})
    assert [latency.table_key(each) for each in found.document["tables"]] == [
        ("d0", None, 1, 2, "end to end"),
        ("d0", None, 1, 2, "network"),
        ("d0", None, 8, 2, "end to end"),
    ]
    assert found.document["rows"] == {}
    fresh = Record.open(path, here, {"tables": []}, resume=False)
    assert fresh.document == here | {"tables": []}
    with pytest.raises(UsageError, match="another machine"):
        Record.open(path, here | {"machine": "Imaginary 9001"}, {})


def test_a_table_that_other_programs_disturbed_is_measured_again():
    from store import ATTEMPTS, measured_quietly

    loads = iter([["other programs took 30%"]] * (ATTEMPTS - 1) + [[]])
    found = measured_quietly(lambda: {"load": {"reasons": next(loads)}}, under_load=False)
    assert found["load"]["reasons"] == []
    busy = {"load": {"reasons": ["other programs took 30%"]}}
    assert measured_quietly(lambda: busy, under_load=True) == busy
    with pytest.raises(ResourceError, match="The numbers measured here are not reliable: other"):
        measured_quietly(lambda: busy, under_load=False)


def test_a_point_of_scaling_is_found_again_by_its_key():
    import scaling

    options = scaling.parse_arguments([])
    points = list(scaling.points(options))
    assert len({each.key for each in points}) == len(points)
    assert {each.kind for each in points} == {
        *("variant", "batch", "threads", "detections", "size", "export")
    }
    assert [each.key for each in scaling.points(options)] == [each.key for each in points]


def test_a_stored_command_names_no_folder_of_the_machine():
    from store import command_of

    given = ["--peers", "eager;naive", "--json", "/home/somebody/out.json", "--files", "bench"]
    assert command_of(given) == "--peers 'eager;naive' --json out.json --files bench"
