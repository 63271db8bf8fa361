"""`bench`: every model is timed at every batch size, compared with the first one, and reported."""

from __future__ import annotations

import json

import pytest

from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.benchmark.benchmarking import Settings, bench, require_device
from effdet_deploy.benchmark.measure import Schedule
from effdet_deploy.benchmark.samples import sample_batch
from effdet_deploy.errors import DeviceError, TensorError
from effdet_deploy.reports import benchmark as report
from tests.onnx_models import SIDE, detector_spec, with_input, write_tiny

QUICK = Schedule(min_runs=7, max_runs=7)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models")
    spec = detector_spec(batch=BatchSpec(1, 1, 4))
    raw = detector_spec(batch=BatchSpec(1, 1, 4), nms="none")
    return write_tiny(directory / "boxes.onnx", spec), write_tiny(directory / "raw.onnx", raw)


@pytest.fixture(scope="module")
def benchmark(models):
    return bench(models, Settings(batches=(1, 4), threads=(1,), schedule=QUICK))


def test_every_model_is_timed_at_every_batch_size(benchmark):
    timed = [(each.name, each.batch, each.threads) for each in benchmark.results]
    assert timed == [
        ("boxes.onnx", 1, 1),
        ("raw.onnx", 1, 1),
        ("boxes.onnx", 4, 1),
        ("raw.onnx", 4, 1),
    ]
    assert all(len(each.end_to_end.seconds) == QUICK.min_runs for each in benchmark.results)
    assert all(
        each.throughput > 0 and each.footprint.load_seconds > 0 for each in benchmark.results
    )


def test_models_are_compared_with_the_first(benchmark):
    first, second, *_ = benchmark.results
    assert first.ratio is None
    assert second.ratio is not None
    assert second.ratio.pairs == QUICK.min_runs
    # The second model has raw heads: numpy decodes 3,069 anchors and does NMS, which takes time.
    assert second.ratio.verdict == "slower"


def test_work_outside_the_graph_has_a_stage_of_its_own(benchmark):
    boxes, raw, *_ = benchmark.results
    assert "finishing in numpy" not in boxes.stages
    assert raw.stages["finishing in numpy"] > 0
    assert boxes.stages["engine"] > 0


def test_the_report_has_one_row_per_result_and_survives_json(benchmark):
    document = json.loads(json.dumps(benchmark.to_dict()))
    assert [each["name"] for each in document["results"]] == [
        each.name for each in benchmark.results
    ]
    assert document["machine"]["cpus"] >= 1
    text = report.to_markdown(benchmark)
    assert text.count("| boxes.onnx |") == 2
    assert str(benchmark.machine) in text


def test_throughput_is_drawn_against_batch_for_every_model(benchmark):
    charts = report.to_charts(benchmark)
    assert set(charts) == {"latency", "throughput against batch"}
    drawn = charts["throughput against batch"]
    for name in ("boxes.onnx", "raw.onnx"):
        assert f">{name}, threads 1</text>" in drawn
        assert drawn.count(f"<title>{name}, threads 1: ") == 2
    text = report.to_markdown(benchmark, {"latency": "bench-latency.svg"})
    assert "![latency](bench-latency.svg)" in text


def test_stages_are_shown_with_their_batch_and_threads(benchmark):
    lines = report.detail_lines(benchmark)
    for batch in (1, 4):
        assert any(each.startswith(f"boxes.onnx, batch {batch}, 1 threads: ") for each in lines)


def test_start_up_time_and_memory_are_reported(benchmark):
    for each in benchmark.results:
        assert each.footprint.peak_memory > each.file_size > 0
    text = report.to_markdown(benchmark)
    assert "of host memory at most" in text
    assert "on the device" not in text


def test_a_batch_size_that_a_model_does_not_take_is_refused_before_timing(models, tmp_path):
    single = write_tiny(tmp_path / "single.onnx")
    with pytest.raises(TensorError, match=r"'single.onnx' takes a batch of 1, not 4"):
        bench([*models, single], Settings(batches=(4,), schedule=QUICK))


def test_the_default_is_the_batch_size_a_model_was_tuned_for(tmp_path):
    tuned = write_tiny(tmp_path / "tuned.onnx", detector_spec(batch=BatchSpec(1, 2, 4)))
    assert [each.batch for each in bench([tuned], Settings(schedule=QUICK)).results] == [2]


@pytest.mark.parametrize(
    ("actual", "asked"), [("cpu", "cpu"), ("cpu", "auto"), ("cuda:0", "cuda"), ("cuda:1", "cuda:1")]
)
def test_the_device_asked_for_is_accepted(actual, asked):
    require_device(actual, asked)


@pytest.mark.parametrize(("actual", "asked"), [("cpu", "cuda"), ("cuda:0", "cuda:1")])
def test_another_device_than_asked_is_refused(actual, asked):
    with pytest.raises(DeviceError, match=f"on '{asked}'.*on '{actual}'"):
        require_device(actual, asked)


@pytest.mark.parametrize("kind", ["uint8", "float255", "normalized"])
def test_a_sample_batch_has_the_shape_of_the_models_input(kind):
    spec = with_input(detector_spec(), kind=kind)
    assert sample_batch(spec, 2).shape == spec.input.shape(2)
    assert SIDE in spec.input.shape(2)


def test_files_of_one_name_are_shown_with_their_folders(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    paths = [write_tiny(tmp_path / folder / "model.onnx") for folder in ("a", "b")]
    found = bench([*paths, paths[0]], Settings(threads=(1,), schedule=QUICK)).results
    assert [each.name for each in found] == [f"{paths[0]} (1)", str(paths[1]), f"{paths[0]} (2)"]


def test_models_are_compared_only_with_models_that_were_timed_at_the_same_batch_size(tmp_path):
    """A model is compared only with the first one that was timed at its batch size."""
    sizes = {"one.onnx": 1, "four.onnx": 4, "other.onnx": 1}
    paths = [
        write_tiny(tmp_path / name, detector_spec(batch=BatchSpec(size, size, size)))
        for name, size in sizes.items()
    ]
    found = bench(paths, Settings(threads=(1,), schedule=QUICK)).results
    assert [(each.name, each.batch) for each in found] == [
        ("one.onnx", 1),
        ("other.onnx", 1),
        ("four.onnx", 4),
    ]
    assert [each.ratio is None for each in found] == [True, False, True]


def test_a_batch_divided_between_threads_has_no_stages(models):
    """Two threads compute two parts of a batch at once, whose times do not add up."""
    boxes, _ = models
    alone, divided = bench([boxes], Settings(batches=(1, 4), threads=(2,), schedule=QUICK)).results
    assert alone.stages["engine"] > 0
    assert not divided.stages
    assert divided.shares
