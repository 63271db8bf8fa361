"""In Chromium, the page of examples/web finds the same rows (detections) as ``Detector``.

Run these tests with `scripts/web.sh test`.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

import effdet_deploy
from effdet_deploy.detection.letterbox import letterbox
from tests.native.models import make_spec, write_model

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
WEB = ROOT / "examples" / "web"
DIGITS = ROOT / "examples" / "digits"
PICTURES = 8
FEW_PICTURES = 2
"""How many pictures WebGPU gets: in software, it takes a quarter of a minute per picture."""
TIMEOUT_SECONDS = 300
PIXEL_TOLERANCE = 0.01
"""How far corners may lie from Python's: the browser's runtimes add in another order."""
SCORE_TOLERANCE = 1e-4
LEVEL_TOLERANCE = 1 / 255
"""How far scores may lie from Python's with OpenCV's filter: pixels may differ by one level."""
CHROMIUM = [
    *("--headless=new", "--no-sandbox", "--no-first-run", "--disable-dev-shm-usage"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]
ENGINES = {
    "wasm": ["--disable-gpu"],
    # In software: no GPU is needed.
    "webgpu": ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"],
}


@pytest.fixture(scope="module")
def chromium():
    """The browser's path."""
    if not (WEB / "node_modules" / "onnxruntime-web").is_dir():
        pytest.skip("onnxruntime-web is not here: 'scripts/web.sh test' fetches it")
    found = shutil.which("chromium") or shutil.which("google-chrome")
    return found or pytest.skip("no Chromium is here: Debian's package 'chromium' has it")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The detector, the same one for frames of 384x512, and pictures of several shapes."""
    folder = tmp_path_factory.mktemp("web")
    export = "import sys; from effdet_deploy.cli import export_main; sys.exit(export_main())"
    weights = ["--weights", DIGITS / "digits_d0.safetensors", "--no-verify", "--candidates", 1000]
    for name, options in {"digits.onnx": [], "frames.onnx": ["--source-size", "384x512"]}.items():
        command = [sys.executable, "-c", export, *weights, *options, folder / name]
        subprocess.run([str(each) for each in command], check=True, capture_output=True)
    scenes = [sys.executable, DIGITS / "scenes.py", "--split", "test", "--seed", "3"]
    subprocess.run([*scenes, "--count", str(PICTURES), folder / "scenes"], check=True)
    for at, path in enumerate(sorted((folder / "scenes" / "images").glob("*.png"))):
        scene = Image.open(path)
        # Larger than the network's input, smaller than it, and exactly as large as a frame.
        size = (512, 384) if at == 0 else (200 + 60 * at, 180 + 70 * at)
        scene.resize(size, Image.Resampling.BICUBIC).save(folder / f"{at}.png")
    return folder


@pytest.fixture(scope="module")
def visit(chromium, files, tmp_path_factory):
    """Return a function that has the browser do a job of web_check.html and gives its result."""
    spec = importlib.util.spec_from_file_location("web_serve", WEB / "serve.py")
    serve = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(serve)
    results = queue.Queue()

    class Handler(serve.Handler):
        def translate_path(self, path):
            name = Path(path.partition("?")[0]).name
            if name == "check.html":
                return str(Path(__file__).with_name("web_check.html"))
            return str(files / name) if (files / name).is_file() else super().translate_path(path)

        def do_POST(self):  # noqa: N802, http.server's name
            results.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=WEB))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def ask(engine, job, model, count=PICTURES, flags=()):
        query = urlencode({"engine": engine, "job": job, "model": model, "count": count})
        address = f"http://127.0.0.1:{server.server_address[1]}/check.html?{query}"
        profile = f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
        command = [chromium, *CHROMIUM, *ENGINES[engine], *flags, profile, address]
        with (files / "chromium.log").open("w") as log:
            browser = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            found = results.get(timeout=TIMEOUT_SECONDS)
        except queue.Empty:
            pytest.fail(f"no answer:\n{(files / 'chromium.log').read_text()[-3000:]}")
        finally:
            os.killpg(browser.pid, 15)
            browser.wait(30)
        if "error" in found:
            if engine == "webgpu" and "offers no WebGPU" in found["error"]:
                pytest.skip(found["error"])
            pytest.fail(found["error"])
        return found

    yield ask
    server.shutdown()
    server.server_close()


def assert_same_rows(found, expected, name, scores=SCORE_TOLERANCE):
    """Compare rows in any order: runtimes may swap rows of nearly equal score."""
    left = list(range(len(expected.scores)))
    for row in found["rows"]:
        same = [
            each
            for each in left
            if row["label"] == expected.labels[each]
            and abs(row["score"] - expected.scores[each]) <= scores
            and np.abs(np.array(row["box"]) - expected.boxes[each]).max() <= PIXEL_TOLERANCE
        ]
        assert same, (name, row)
        left.remove(same[0])
    assert not left, (name, [expected.boxes[each] for each in left])
    return len(found["rows"])


@pytest.mark.parametrize("engine", ENGINES)
def test_the_rows_of_letterboxed_pixels_are_those_of_python(visit, files, engine):
    count = FEW_PICTURES if engine == "webgpu" else PICTURES
    with effdet_deploy.load(files / "digits.onnx", "onnxruntime", "cpu") as detector:
        expected = []
        for at in range(count):
            image = np.asarray(Image.open(files / f"{at}.png"))
            canvas, _ = letterbox(image, detector.spec.input)
            Image.fromarray(canvas).convert("RGBA").save(files / "canvas.png")
            rgba = np.asarray(Image.open(files / "canvas.png"))
            (files / f"{at}.rgba").write_bytes(rgba.tobytes())
            expected += detector.detect(canvas)
    found = visit(engine, "pixels", "digits.onnx", count)
    total = sum(assert_same_rows(*each) for each in zip(found, expected, range(count), strict=True))
    assert total > 10 * count


@pytest.mark.parametrize("model", ["digits.onnx", "frames.onnx"])
def test_pictures_dropped_on_the_page_have_the_rows_of_python(visit, files, model):
    with effdet_deploy.load(files / model, "onnxruntime", "cpu") as detector:
        expected = [detector.detect(files / f"{at}.png", 0.01)[0] for at in range(PICTURES)]
    found = visit("wasm", "dropped", model)
    pairs = zip(found, expected, range(PICTURES), strict=True)
    total = sum(assert_same_rows(*each) for each in pairs)
    assert total > 10 * PICTURES


@pytest.mark.parametrize(
    ("fields", "output", "scores"),
    [
        ({"channel_order": "bgr", "resize": "center", "fill": [10, 200, 90]}, {}, SCORE_TOLERANCE),
        ({"resize": "stretch"}, {"box_format": "yxyx"}, SCORE_TOLERANCE),
        ({"interpolation": "linear"}, {}, LEVEL_TOLERANCE),
    ],
)
def test_colors_places_filters_and_box_orders_are_those_of_the_spec(
    visit, files, fields, output, scores
):
    write_model(files / "tiny.onnx", make_spec(output=output, **fields))
    with effdet_deploy.load(files / "tiny.onnx", "onnxruntime", "cpu") as detector:
        expected = [detector.detect(files / f"{at}.png")[0] for at in range(PICTURES)]
    found = visit("wasm", "dropped", "tiny.onnx")
    each = zip(found, expected, range(PICTURES), strict=True)
    assert sum(assert_same_rows(*rows, scores) for rows in each) > PICTURES


def test_a_picture_of_the_camera_gives_the_page_the_classes_that_python_finds(visit, files):
    Image.open(files / "0.png").save(files / "camera.mjpeg", "JPEG", quality=95)
    with effdet_deploy.load(files / "digits.onnx", "onnxruntime", "cpu") as detector:
        (expected,) = detector.detect(files / "0.png", 0.5)
    flag = f"--use-file-for-fake-video-capture={files / 'camera.mjpeg'}"
    (found,) = visit("wasm", "camera", "digits.onnx", 1, [flag])
    strong = sorted(row["label"] for row in found["rows"] if row["score"] >= 0.5)
    assert strong == sorted(expected.labels.tolist())


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\x89PNG and more", "not a complete ONNX file"), (b"", "has no 'effdet.spec'")],
)
def test_the_page_says_why_a_file_is_not_a_model(visit, files, content, message):
    (files / "other.onnx").write_bytes(content)
    with pytest.raises(pytest.fail.Exception, match=message):
        visit("wasm", "dropped", "other.onnx", 1)
