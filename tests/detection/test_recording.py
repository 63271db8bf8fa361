"""Results of a video: a row of JSON for every frame, and an annotated copy that players open."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import numpy as np
import pytest

import effdet_deploy
from effdet_deploy.detection.outputs import Wanted
from effdet_deploy.detection.recording import Film, Recorded, detect_video, recorded
from effdet_deploy.detection.tiling import Tiles
from effdet_deploy.detection.video import Video
from effdet_deploy.errors import DownloadError, UsageError
from tests.detection.clips import write_clip
from tests.loopback import Site, serving
from tests.onnx_models import write_tiny

av = pytest.importorskip("av")

FRAMES_OF_TEN_MINUTES = 15_000
MOST_GROWTH = 24 << 20
"""Bytes by which the process may grow after the first fifth of the video."""


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    model = write_tiny(tmp_path_factory.mktemp("model") / "tiny.onnx")
    with effdet_deploy.load(model, "onnxruntime", "cpu") as loaded:
        yield loaded


def run(detector, video, output, tell=lambda done: None, **wanted):
    files = Recorded(output / "clip.jsonl", output / "clip.mp4")
    rows = []
    detect_video(detector, video, files, 0.05, Wanted(output, **wanted), tell, rows)
    (row,) = rows
    lines = [json.loads(each) for each in files.lines.read_text().splitlines()]
    return row, lines


def played(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [(each.time, each.to_ndarray(format="rgb24")) for each in container.decode(stream)]
        return stream, frames


def test_every_frame_has_the_rows_of_detect_and_its_time(detector, tmp_path):
    clip = write_clip(tmp_path / "in.mp4", 30)
    row, lines = run(detector, Video(clip, stride=3), tmp_path)
    with Video(clip) as video:
        frames = list(video)[::3]
    assert [each["frame"] for each in lines] == [each.index for each in frames]
    for line, frame in zip(lines, frames, strict=True):
        (found,) = detector.detect(frame.pixels, 0.05)
        assert len(found) > 1
        assert line["detections"] == json.loads(json.dumps(found.to_json()))
        assert line["seconds"] == pytest.approx(frame.seconds, abs=1e-6)
    assert row["frames"] == 10
    assert row["decoded"] == 30
    assert row["found"] == sum(len(each["detections"]) for each in lines)


@pytest.mark.parametrize("size", [(96, 64), (98, 70)])
def test_the_annotated_video_has_the_frames_the_rate_and_the_boxes(detector, tmp_path, size):
    clip = write_clip(tmp_path / "in.mp4", 25, rate=25, size=size)
    row, _ = run(detector, Video(clip), tmp_path)
    stream, frames = played(row["annotated"])
    assert (stream.width, stream.height) == size
    assert stream.average_rate == 25
    assert [round(seconds, 3) for seconds, _ in frames] == [index / 25 for index in range(25)]
    with Video(clip) as video:
        for frame, (_, pixels) in zip(video, frames, strict=True):
            (found,) = detector.detect(frame.pixels, 0.05)
            drawn = np.asarray(found.draw(frame.pixels), int)
            plain = np.abs(pixels - frame.pixels.astype(int)).mean()
            assert np.abs(pixels - drawn).mean() < min(12, plain)


def test_classes_that_were_not_asked_for_are_neither_in_the_rows_nor_on_the_video(
    detector, tmp_path
):
    clip = write_clip(tmp_path / "in.mp4", 10)
    row, lines = run(detector, Video(clip), tmp_path, classes=("ring",))
    assert {found["name"] for each in lines for found in each["detections"]} == {"ring"}
    _, frames = played(row["annotated"])
    with Video(clip) as video:
        for frame, (_, pixels) in zip(video, frames, strict=True):
            (every,) = detector.detect(frame.pixels, 0.05)
            rings = every.only([every.names.index("ring")])
            assert 0 < len(rings) < len(every)
            distances = [
                np.abs(pixels - np.asarray(each.draw(frame.pixels), int)).mean()
                for each in (rings, every)
            ]
            assert distances[0] < distances[1]


def test_large_frames_run_in_tiles(detector, tmp_path):
    clip = write_clip(tmp_path / "in.mp4", 3, size=(320, 256))
    _, lines = run(detector, Video(clip), tmp_path, tiles=Tiles(128, 0.25))
    _, plain = run(detector, Video(clip), tmp_path)
    with Video(clip) as video:
        for line, whole, frame in zip(lines, plain, video, strict=True):
            (found,) = detector.detect_tiled([frame.pixels], 128, 0.25, 0.05)
            assert line["detections"] == json.loads(json.dumps(found.to_json()))
            assert line["detections"] != whole["detections"]


def test_a_live_video_has_one_decoder(detector, tmp_path, monkeypatch):
    """Every decoder holds one more frame, which makes the results of a live video later."""
    clip = write_clip(tmp_path / "live.ts", 30)
    served = Site({"live.ts": clip.read_bytes()}, takes_ranges=False, tells_length=False)
    asked = []
    stream = detector.stream

    def spied(*sources, **options):
        asked.append(options["decoders"])
        return stream(*sources, **options)

    monkeypatch.setattr(detector, "stream", spied)
    with serving(served):
        video = Video(served.url("live.ts"))
        with pytest.raises(DownloadError, match="stopped after"):
            run(detector, video, tmp_path)
    run(detector, Video(clip), tmp_path)
    assert asked == [1, None]


def test_odd_sides_are_padded_by_one_pixel_and_times_always_grow(tmp_path):
    from PIL import Image

    with Film(tmp_path / "odd.mp4", (97, 65), None) as film:
        for second in (5.0, 5.5, 5.5, 4.0):
            film.add(second, Image.new("RGB", (97, 65), "red"))
    stream, frames = played(tmp_path / "odd.mp4")
    assert (stream.width, stream.height) == (98, 66)
    # Times that do not grow, as in a stream that was restarted, are moved.
    times = [seconds for seconds, _ in frames]
    assert times == sorted(set(times))
    assert times[:2] == [0, 0.5]
    assert all(pixels[..., 0].mean() > 200 for _, pixels in frames)


def test_finished_frames_are_kept_where_the_work_stops(detector, tmp_path):
    clip = write_clip(tmp_path / "in.mp4", 60)

    def stop(done):
        if done == 20:
            raise KeyboardInterrupt

    files = Recorded(tmp_path / "clip.jsonl", tmp_path / "clip.mp4")
    rows = []
    with pytest.raises(KeyboardInterrupt):
        detect_video(detector, Video(clip), files, 0.05, Wanted(tmp_path), stop, rows)
    assert rows[0]["frames"] == 20
    assert len(files.lines.read_text().splitlines()) == 20
    _, frames = played(files.annotated)
    assert 20 <= len(frames) < 60
    assert sorted(each.name for each in tmp_path.iterdir()) == ["clip.jsonl", "clip.mp4", "in.mp4"]


def test_a_source_faster_than_the_runtime_drops_frames_and_keeps_the_order(detector, tmp_path):
    clip = write_clip(tmp_path / "live.ts", 250)
    served = Site({"live.ts": clip.read_bytes()}, takes_ranges=False, tells_length=False)
    files = Recorded(tmp_path / "clip.jsonl", None)
    rows = []

    def slow(done):
        time.sleep(0.005)

    with serving(served):
        video = Video(served.url("live.ts"))
        with pytest.raises(DownloadError, match="stopped"):
            detect_video(detector, video, files, 0.05, Wanted(tmp_path), slow, rows)
    (row,) = rows
    lines = [json.loads(each) for each in files.lines.read_text().splitlines()]
    places = [each["frame"] for each in lines]
    assert places == sorted(set(places))
    assert row["dropped"] > 0
    assert row["frames"] + row["dropped"] <= row["decoded"]


def test_two_videos_of_one_name_have_results_of_different_names(tmp_path):
    files = recorded(["a/clip.mp4", "b/CLIP.mov"], tmp_path, annotate=True)
    written = [each for pair in files.values() for each in (pair.lines, pair.annotated)]
    assert [each.name for each in written] == [
        *("clip.jsonl", "clip.mp4", "CLIP-2.jsonl", "CLIP-2.mp4")
    ]


def test_a_video_that_is_named_twice_is_read_once(tmp_path):
    (pair,) = recorded(["clip.mp4", "clip.mp4"], tmp_path, annotate=True).values()
    assert pair == Recorded(tmp_path / "clip.jsonl", tmp_path / "clip.mp4")


def test_no_result_replaces_a_video_and_pictures_are_refused(tmp_path):
    with pytest.raises(UsageError, match="would replace a video"):
        recorded([str(tmp_path / "clip.mp4")], tmp_path, annotate=True)
    recorded([str(tmp_path / "clip.mp4")], tmp_path, annotate=False)
    with pytest.raises(UsageError, match=r"'photo\.png' is not a video"):
        recorded(["clip.mp4", "photo.png"], tmp_path, annotate=False)


@pytest.mark.slow
def test_ten_minutes_come_in_order_and_memory_does_not_grow(detector, tmp_path, record_property):
    clip = write_clip(tmp_path / "long.mp4", FRAMES_OF_TEN_MINUTES)
    sizes = []

    def tell(done):
        if done % (FRAMES_OF_TEN_MINUTES // 10) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            sizes.append(pages * 4096)

    row, lines = run(detector, Video(clip), tmp_path, tell)
    assert row["frames"] == row["decoded"] == FRAMES_OF_TEN_MINUTES
    assert [each["frame"] for each in lines] == list(range(FRAMES_OF_TEN_MINUTES))
    assert lines[-1]["seconds"] == pytest.approx(600 - 1 / 25)
    assert all(later > sooner for sooner, later in itertools.pairwise(x["seconds"] for x in lines))
    assert max(sizes[2:]) - sizes[1] < MOST_GROWTH
    stream, _ = played(row["annotated"])
    assert stream.frames == FRAMES_OF_TEN_MINUTES
