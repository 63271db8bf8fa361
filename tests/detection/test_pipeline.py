"""`Detector.stream`: outcomes in order, errors in their place, and threads that always end."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
from PIL import Image

from effdet_deploy.artifact.placement import Placement
from effdet_deploy.artifact.spec import BatchSpec
from effdet_deploy.detection.detector import load
from effdet_deploy.detection.pipeline import Outcome, Prepared, Stages, in_threads, outcomes
from effdet_deploy.errors import ImageError, ModelFileError, UsageError
from effdet_deploy.synthetic import structured_pictures
from tests.onnx_models import SIDE, detector_spec, with_input, write_tiny

PATIENCE = 60
"""Seconds after which a test that waits for another thread has failed."""


def picture(level: int) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), level, np.uint8)


@pytest.fixture
def model(tmp_path):
    return write_tiny(tmp_path / "tiny.onnx", detector_spec(batch=BatchSpec(1, 2, 4)))


@pytest.fixture
def detector(model):
    with load(model, threads=1) as loaded:
        yield loaded


def own_threads() -> list[threading.Thread]:
    """Return the running threads that streams started."""
    return [each for each in threading.enumerate() if each.name.startswith(("stream", "ahead"))]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert own_threads() == []


def doubled(prepare=lambda source: source, run=lambda batch: batch, batch=1) -> Stages:
    """Stages that double numbers."""
    return Stages(
        _prepared(prepare), run, lambda found, _: [2 * each.number for each in found], batch
    )


@dataclass(frozen=True)
class Number(Prepared):
    number: int = 0


def _prepared(prepare):
    placed = Placement((1, 1), (1, 1), (1, 1))
    return lambda source: Number(np.zeros(1), placed, number=prepare(source))


def numbers(found) -> list:
    return [each.detections for each in found]


def test_outcomes_come_in_the_order_of_the_pictures_however_long_each_takes():
    turns = {place: threading.Event() for place in range(4)}

    def prepare(source):
        # Each picture is decoded only after the one that follows it.
        if source + 1 in turns:
            assert turns[source + 1].wait(PATIENCE)
        turns[source].set()
        return source

    found = list(outcomes(range(4), doubled(prepare), decoders=4, ahead=4))
    assert [(each.index, each.source, each.detections) for each in found] == [
        (place, place, 2 * place) for place in range(4)
    ]


@pytest.mark.parametrize("decoders", [1, 3])
def test_rows_are_those_of_detect_and_errors_lie_in_their_place(detector, tmp_path, decoders):
    paths = [tmp_path / f"{level}.png" for level in range(100, 250, 10)]
    for level, path in zip(range(100, 250, 10), paths, strict=True):
        Image.fromarray(picture(level)[: level // 2]).save(path)
    expected = detector.detect(paths)
    sources = [*paths[:5], b"no picture", *paths[5:], tmp_path / "absent.png"]
    found = list(detector.stream(sources, decoders=decoders))
    assert [each.index for each in found] == list(range(len(sources)))
    assert [each.source for each in found] == sources
    bad = [found.pop(5), found.pop(-1)]
    assert all(isinstance(each.error, ImageError) and each.detections is None for each in bad)
    assert "not an image of a known format" in str(bad[0].error)
    assert "absent.png" in str(bad[1].error)
    for one, other in zip(found, expected, strict=True):
        assert one.error is None
        assert one.image is None
        assert one.detections.to_json() == other.to_json()


def test_a_stream_takes_every_form_of_picture_that_detect_takes(detector, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(picture(200)).save(path)

    class Frame:
        def __array__(self, dtype=None, copy=None):
            return picture(200)

    sources = [path, str(path), path.read_bytes(), picture(200), Image.open(path), Frame()]
    with path.open("rb") as file:
        found = list(detector.stream([*sources, file], keep_image=True))
    assert found[5].source is sources[5]
    for each in found:
        np.testing.assert_array_equal(each.image, picture(200))
        assert each.detections.to_json() == found[0].detections.to_json()


def test_a_threshold_by_class_name_holds(detector):
    (found,) = detector.stream([picture(255)], score_threshold={"square": 0.9, "*": 0.7})
    assert [each["name"] for each in found.detections.to_json()] == ["square", "ring"]


def test_a_real_detector_gives_the_rows_of_detect(tmp_path):
    pytest.importorskip("torch")
    from effdet_deploy import ExportOptions, export
    from tests.networks import conditioned

    options = ExportOptions(candidates=1000, score_threshold=0.0, verify=False)
    path = export(conditioned("tf_efficientdet_lite0"), tmp_path / "lite0.onnx", options).path
    pictures = list(structured_pictures(10, 100, 150, seed=4))
    with load(path, threads=2) as detector:
        expected = [detector.detect(each)[0] for each in pictures]
        found = list(detector.stream(pictures))
    for one, other in zip(found, expected, strict=True):
        assert len(other) > 20
        assert one.detections.to_json() == other.to_json()


@pytest.mark.parametrize(
    ("threads", "side", "together"), [(2, SIDE, 2), (2, 1024, 1), (1, SIDE, 1)]
)
def test_small_pictures_are_computed_at_the_same_time_each_on_one_thread(
    tmp_path, monkeypatch, threads, side, together
):
    spec = with_input(detector_spec(), height=side, width=side)
    # Each run waits until ``together`` runs are under way.
    runs = threading.Barrier(together, timeout=PATIENCE)
    with load(write_tiny(tmp_path / "tiny.onnx", spec), threads=threads) as detector:
        compute = "run_on_one_thread" if together > 1 else "run_side_by_side"
        run = getattr(detector.runtime, compute)
        monkeypatch.setattr(detector.runtime, compute, lambda feeds: (runs.wait(), run(feeds))[1])
        assert len(list(detector.stream([picture(level) for level in range(100, 106)]))) == 6


def test_what_cannot_be_streamed_is_refused_before_any_thread_starts(detector):
    with pytest.raises(UsageError, match="below 0"):
        detector.stream([], score_threshold=0.001)
    with pytest.raises(UsageError, match="decoders must be at least 1, not 0"):
        detector.stream([], decoders=0)
    for single in ("a.png", picture(1), {"a": 1}):
        with pytest.raises(ImageError, match="stream of pictures cannot be a"):
            detector.stream(single)
    assert list(detector.stream([])) == []


def test_a_source_without_end_is_read_no_further_than_needed():
    taken = []

    def source():
        for number in itertools.count():
            taken.append(number)
            yield number

    stream = outcomes(source(), doubled(), decoders=2, ahead=5)
    assert numbers(itertools.islice(stream, 20)) == list(range(0, 40, 2))
    stream.close()
    assert own_threads() == []
    # One more picture was taken from the source and waits until there is room for it.
    assert len(taken) <= 20 + 5 + 1


def test_a_slow_source_gets_each_outcome_before_its_next_picture(detector):
    seen = threading.Semaphore(0)

    def source():
        for level in range(50, 60):
            yield picture(level)
            assert seen.acquire(timeout=PATIENCE)

    for found in detector.stream(source()):
        assert len(found.detections) == 4
        seen.release()


def test_a_stream_can_be_closed_while_its_source_blocks():
    forever = threading.Event()

    def source():
        yield 1
        forever.wait(PATIENCE)

    stream = outcomes(source(), doubled(), decoders=2, ahead=4)
    assert next(stream).detections == 2
    stream.close()
    assert [each.name for each in own_threads()] == ["stream_read"]
    forever.set()
    own_threads()[0].join(PATIENCE)


def test_batches_are_filled_from_what_is_ready():
    sizes: list[int] = []
    is_decoded, is_running = threading.Event(), threading.Event()

    def prepare(source):
        if source == 6:
            is_decoded.set()
        # The first picture runs alone, because no other is ready by then.
        assert source == 0 or is_running.wait(PATIENCE)
        return source

    def run(batch):
        is_running.set()
        assert is_decoded.wait(PATIENCE)
        sizes.append(len(batch))
        return batch

    found = list(outcomes(range(7), doubled(prepare, run, batch=3), decoders=1, ahead=9))
    assert numbers(found) == list(range(0, 14, 2))
    assert sizes[0] == 1
    assert max(sizes) == 3
    assert sum(sizes) == 7


def test_what_the_source_raises_is_raised_after_the_pictures_before_it():
    def source():
        yield from range(3)
        raise LookupError("no more frames")

    found: list[Outcome] = []
    with pytest.raises(LookupError, match="no more frames"):
        found.extend(outcomes(source(), doubled(), decoders=2, ahead=8))
    stream = outcomes(source(), doubled(), decoders=2, ahead=8)
    assert numbers(itertools.islice(stream, 3)) == [0, 2, 4]
    with pytest.raises(LookupError):
        next(stream)


@pytest.mark.parametrize("stage", ["prepare", "run", "finish"])
def test_an_error_of_the_model_ends_the_stream_at_its_picture(stage):
    """An error while a picture is prepared concerns that picture alone, and the stream goes on."""

    def broken(source):
        if source == 3:
            raise ModelFileError("The model's output holds NaN.")
        return source

    def run(batch):
        return [broken(each.number) for each in batch] and batch

    def finish(found, _):
        return [broken(each.number) for each in found]

    identity = doubled()
    stages = Stages(
        _prepared(broken if stage == "prepare" else int),
        run if stage == "run" else identity.run,
        finish if stage == "finish" else identity.finish,
    )
    stream = outcomes(range(9), stages, decoders=2, ahead=6)
    assert len(list(itertools.islice(stream, 3))) == 3
    if stage == "prepare":
        assert isinstance(next(stream).error, ModelFileError)
        assert len(list(stream)) == 5
    else:
        with pytest.raises(ModelFileError):
            next(stream)


def test_a_bug_in_decoding_is_raised_and_leaves_no_thread():
    stages = doubled(lambda source: 1 / (source - 2))
    with pytest.raises(ZeroDivisionError):
        list(outcomes(range(5), stages, decoders=2, ahead=4))


def test_a_detector_that_is_closed_during_a_stream_says_so(detector):
    stream = detector.stream(itertools.repeat(picture(9)))
    next(stream)
    detector.close()
    with pytest.raises(UsageError, match="is closed"):
        list(stream)


def test_several_streams_of_one_detector_run_at_the_same_time(detector):
    one = detector.stream([picture(level) for level in range(100, 110)])
    other = detector.stream([picture(level) for level in range(110, 120)])
    found = [(a.detections.scores[0], b.detections.scores[0]) for a, b in zip(one, other)]  # noqa: B905
    np.testing.assert_allclose(
        found, [(x / 255, x / 255 + 10 / 255) for x in range(100, 110)], atol=1e-4
    )


def test_a_stream_may_be_left_before_or_after_its_first_picture(detector):
    stream = detector.stream(itertools.repeat(picture(1)))
    assert own_threads() == []
    stream.close()
    del stream
    for found in detector.stream(itertools.repeat(picture(1))):
        assert found.index == 0
        break


def test_memory_does_not_grow_with_the_number_of_pictures(detector):
    alive: set[int] = set()
    held: list[int] = []

    def source():
        for number in range(3000):
            image = picture(number % 200)[:8, :8]
            alive.add(number)
            weakref.finalize(image, alive.discard, number)
            yield image

    for found in detector.stream(source(), decoders=2, keep_image=True):
        assert found.index == len(held)
        held.append(len(alive))
    assert len(held) == 3000
    # Pictures are held by two decoders, by two batches of four, by finished results, and in loops.
    assert max(held) < 24
    assert len(alive) < 5


SCRIPT = """
import itertools, multiprocessing, os, signal, sys, time
import numpy
from effdet_deploy import load

white = numpy.full((128, 128, 3), 255, numpy.uint8)

def work(detector, results):
    results.put([len(each.detections) for each in detector.stream([white] * 5)])

if __name__ == "__main__":
    detector = load(sys.argv[1], "onnxruntime")
    stream = detector.stream(itertools.repeat(white))
    next(stream)
    if sys.argv[2] == "interrupt":
        # A program in the background of a shell inherits an ignored SIGINT.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("running", flush=True)
        for each in stream:
            pass
    if sys.argv[2] == "exit":
        print("running", flush=True)
        sys.exit(7)
    context = multiprocessing.get_context(sys.argv[2])
    results = context.Queue()
    other = context.Process(target=work, args=(detector, results))
    other.start()
    print(results.get(timeout=90))
    other.join(90)
    print(other.exitcode)
    if sys.argv[2] == "fork":
        child = os.fork()
        if not child:
            try:
                next(stream)
            except BaseException as error:
                print(error, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
"""


def run_script(tmp_path, model, action) -> subprocess.Popen:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(script), str(model), action],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_streams_with_the_detector_of_its_parent(tmp_path, model, method):
    with run_script(tmp_path, model, method) as process:
        said, errors = process.communicate(timeout=4 * PATIENCE)
    lines = said.splitlines()
    assert lines[:2] == ["[4, 4, 4, 4, 4]", "0"], errors
    if method == "fork":
        assert lines[2].startswith("A stream does not survive the fork of its process.")
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_and_the_end_of_the_program_end_a_stream(tmp_path, model):
    for action, code in (("interrupt", -signal.SIGINT), ("exit", 7)):
        with run_script(tmp_path, model, action) as process:
            assert process.stdout.readline() == "running\n"
            if action == "interrupt":
                os.kill(process.pid, signal.SIGINT)
            try:
                _, errors = process.communicate(timeout=PATIENCE)
            finally:
                process.kill()
        assert process.returncode == code, errors
        assert ("KeyboardInterrupt" in errors) == (action == "interrupt")
        assert "Fatal" not in errors


def test_results_that_threads_compute_ahead_come_in_order_and_errors_in_their_place():
    assert list(in_threads(lambda each: each * each, range(20), 3)) == [x * x for x in range(20)]
    found = in_threads(lambda each: 1 // (5 - each), itertools.count(), 2)
    assert [next(found) for _ in range(5)] == [0, 0, 0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_threads_that_compute_ahead_take_few_items_and_end_with_the_iterator():
    taken = []
    items = (taken.append(each) or each for each in itertools.count())
    found = in_threads(partial(pow, 2), items, 2)
    assert [next(found) for _ in range(3)] == [1, 2, 4]
    found.close()
    assert len(taken) <= 3 + 2 * 2 + 1


def saved_jpeg(path, rows, columns, **options):
    (pixels,) = structured_pictures(1, rows, columns, seed=6)
    Image.fromarray(pixels).save(path, quality=95, **options)
    return path


@pytest.mark.parametrize("size", [(4 * SIDE, 3 * SIDE), (3 * SIDE, 8 * SIDE), (50, 60)])
def test_boxes_of_a_fast_decode_are_in_pixels_of_the_whole_picture(detector, tmp_path, size):
    path = saved_jpeg(tmp_path / "a.jpg", *size)
    (whole,) = detector.stream([path], keep_image=True)
    (fast,) = detector.stream([path], keep_image=True, fast_decode=True)
    assert whole.size == fast.size == size
    assert whole.image.shape[:2] == size
    step = next(each for each in (8, 4, 2, 1) if max(size) >= each * SIDE or each == 1)
    assert fast.image.shape[:2] == (size[0] // step, size[1] // step)
    np.testing.assert_array_equal(fast.detections.boxes, whole.detections.boxes)
    # The score is the mean brightness.
    np.testing.assert_allclose(fast.detections.scores, whole.detections.scores, atol=2e-3)


def test_a_fast_decode_turns_pictures_as_exif_says(detector, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved_jpeg(tmp_path / "a.jpg", 2 * SIDE, 8 * SIDE, exif=exif)
    (whole,) = detector.stream([path.read_bytes()])
    (fast,) = detector.stream([path.read_bytes()], keep_image=True, fast_decode=True)
    assert fast.size == whole.size == (8 * SIDE, 2 * SIDE)
    assert fast.image.shape[:2] == (SIDE, SIDE // 4)
    np.testing.assert_array_equal(fast.detections.boxes, whole.detections.boxes)


def test_a_fast_decode_leaves_everything_but_large_jpegs_as_it_is(detector, tmp_path):
    pixels = np.asarray(Image.open(saved_jpeg(tmp_path / "a.jpg", 150, 200)))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(np.tile(pixels, (4, 4, 1))).save(tmp_path / "large.png")
    sources = [tmp_path / "a.jpg", tmp_path / "a.png", pixels, tmp_path / "large.png"]
    for fast, whole in zip(
        detector.stream(sources, keep_image=True, fast_decode=True),
        detector.stream(sources, keep_image=True),
        strict=True,
    ):
        np.testing.assert_array_equal(fast.image, whole.image)
        assert fast.detections.to_json() == whole.detections.to_json()


def test_an_outcome_gives_its_detections_or_raises_its_error(detector):
    good, bad = detector.stream([picture(255), b"no picture"])
    assert good.required() is good.detections
    assert good.size == (SIDE, SIDE)
    assert bad.size is None
    with pytest.raises(ImageError, match="known format"):
        bad.required()
