"""Frames of files, streams and cameras: those that PyAV decodes, at its times, in order."""

from __future__ import annotations

import socket
import struct
import time
from fractions import Fraction

import numpy as np
import pytest

from effdet_deploy.detection.images import load_image
from effdet_deploy.detection.video import TIMEOUT, Video, is_video, name_of
from effdet_deploy.errors import DownloadError, ImageError, UsageError
from tests.detection.clips import write_clip
from tests.loopback import Site, serving

av = pytest.importorskip("av")


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "clip.mp4", 30, rate=25)


def decoded(path):
    with av.open(str(path)) as container:
        return [(each.time, each.to_ndarray(format="rgb24")) for each in container.decode(video=0)]


def test_frames_and_times_are_those_of_pyav(clip):
    with Video(clip) as video:
        found = list(video)
        assert (video.size, video.rate, video.expected) == ((96, 64), 25, 30)
        assert (video.decoded, video.dropped, video.broken) == (30, 0, 0)
    expected = decoded(clip)
    assert len(expected) == 30
    assert [each.index for each in found] == list(range(30))
    assert [each.seconds for each in found] == [seconds for seconds, _ in expected]
    for frame, (_, pixels) in zip(found, expected, strict=True):
        assert np.array_equal(frame.pixels, pixels)
        assert np.array_equal(load_image(frame), pixels)


def test_every_nth_frame_is_used(clip):
    with Video(clip, stride=7) as video:
        assert video.expected == 5
        assert [each.index for each in video] == [0, 7, 14, 21, 28]


@pytest.mark.parametrize(
    ("max_fps", "indices"),
    [(5, [0, 5, 10, 15, 20, 25]), (10, [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28]), (0.5, [0])],
)
def test_max_fps_limits_the_frames_by_the_clock_of_the_video(clip, max_fps, indices):
    with Video(clip, max_fps=max_fps) as video:
        assert video.expected == len(indices)
        assert [each.index for each in video] == indices


def test_stride_and_max_fps_hold_together(clip):
    with Video(clip, stride=2, max_fps=5) as video:
        assert [each.index for each in video] == [0, 6, 10, 16, 20, 26]


def test_max_fps_follows_the_times_of_unevenly_spaced_frames(tmp_path):
    times = [0, 0.1, 0.2, 1.0, 1.05, 3.0]
    clip = write_clip(tmp_path / "uneven.mkv", len(times), times=times)
    with Video(clip, max_fps=2) as video:
        assert [round(each.seconds, 3) for each in video] == [0, 1, 3]


def test_a_video_that_a_phone_recorded_turned_is_upright(clip, tmp_path):
    content = clip.read_bytes()
    # The matrix in the track's header: a quarter turn clockwise.
    place = content.index(b"tkhd") + 4 + 40
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 64 << 16, 0, 1 << 30)
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(content[:place] + matrix + content[place + len(matrix) :])
    with Video(turned) as video:
        assert video.size == (64, 96)
        found = list(video)
    for frame, (_, pixels) in zip(found, decoded(clip), strict=True):
        assert np.array_equal(frame.pixels, np.rot90(pixels, -1))


def test_a_broken_part_is_counted_and_the_rest_is_read(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 60, rate=25)
    content = bytearray(clip.read_bytes())
    begin = len(content) // 3
    for place in range(begin, begin + 200):
        content[place] ^= 0x5A
    clip.write_bytes(content)
    with Video(clip) as video:
        found = [each.index for each in video]
        assert video.broken > 0
        assert 0 < len(found) < 60
        assert found == list(range(len(found)))


def test_a_stream_gives_the_newest_frame_and_counts_those_that_were_dropped(tmp_path):
    clip = write_clip(tmp_path / "live.ts", 200, rate=25)
    served = Site({"live.ts": clip.read_bytes()}, takes_ranges=False, tells_length=False)
    found = []
    with serving(served), Video(served.url("live.ts")) as video:
        assert video.is_live
        assert video.expected is None

        def read():
            for frame in video:
                found.append(frame.index)
                time.sleep(0.01)

        # Where no length is known, FFmpeg takes the end for a broken connection.
        with pytest.raises(DownloadError, match=r"stopped after .* frames"):
            read()
    assert found == sorted(set(found))
    assert found[-1] == video.decoded - 1 > 150
    assert video.dropped > 0
    assert len(found) + video.dropped == video.decoded


def test_a_stream_that_is_read_in_time_drops_nothing(tmp_path):
    clip = write_clip(tmp_path / "file.mp4", 40, rate=25)
    served = Site({"file.mp4": clip.read_bytes()})
    with serving(served), Video(served.url("file.mp4")) as video:
        assert not video.is_live
        assert [each.index for each in video] == list(range(40))
        assert video.dropped == 0


def test_a_live_video_can_be_closed_before_its_end(tmp_path):
    clip = write_clip(tmp_path / "live.ts", 200, rate=25)
    served = Site({"live.ts": clip.read_bytes()}, takes_ranges=False, tells_length=False)
    with serving(served), Video(served.url("live.ts")) as video:
        frames = iter(video)
        assert next(frames).index < 200
    assert list(frames) == []
    video.close()


@pytest.mark.parametrize(
    ("source", "is_one"),
    [
        ("clip.mp4", True),
        ("clip.MOV", True),
        ("RTSP://camera/1", True),
        ("https://host/clip", True),
        ("0", True),
        ("/dev/video2", True),
        ("photo.png", False),
        ("folder", False),
        ("C:/clips", False),
    ],
)
def test_videos_are_distinguished_from_pictures(source, is_one):
    assert is_video(source) == is_one


def test_a_folder_named_like_a_camera_or_a_video_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("7", "clip.mp4"):
        (tmp_path / name).mkdir()
        assert not is_video(name)


def test_results_are_named_after_the_video():
    names = {"a/clip.mp4": "clip", "rtsp://u:p@host/cam/stream1?key=x": "stream1", "3": "camera-3"}
    assert {each: name_of(each) for each in names} == names


def test_no_message_shows_a_password():
    with pytest.raises(DownloadError) as caught:
        Video("rtsp://user:secret@127.0.0.1:1/live", timeout=1)
    assert "secret" not in str(caught.value)
    assert "rtsp://127.0.0.1:1/live" in str(caught.value)


def test_an_address_that_never_answers_is_given_up_after_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(DownloadError, match=r"must answer within 0\.3 seconds"):
            Video(f"http://127.0.0.1:{silent.getsockname()[1]}/live.ts", timeout=0.3)
    # Without a timeout FFmpeg waits forever; TIMEOUT is the one that holds by default.
    assert time.monotonic() - begun < TIMEOUT


def test_a_source_that_is_not_a_video_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ImageError, match=r"none\.mp4' does not exist"):
        Video(tmp_path / "none.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ImageError, match="not a video that FFmpeg reads: Invalid data"):
        Video(tmp_path / "text.mp4")
    with pytest.raises(ImageError, match="camera '/dev/video977' cannot be read"):
        Video("977")


def test_a_file_that_holds_only_sound_is_refused(tmp_path):
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ImageError, match="There is no video in"):
        Video(path)


@pytest.mark.parametrize("option", [{"stride": 0}, {"max_fps": -1.0}, {"max_fps": 0}])
def test_numbers_that_are_not_positive_are_refused(clip, option):
    (name,) = option
    with pytest.raises(UsageError, match=f"{name} must be more than 0"):
        Video(clip, **option)


def test_the_frame_rate_is_an_exact_fraction(tmp_path):
    clip = write_clip(tmp_path / "ntsc.mp4", 10, rate=Fraction(30000, 1001))
    with Video(clip) as video:
        assert video.rate == Fraction(30000, 1001)
